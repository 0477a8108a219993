//! The log thread of a namespace: makes what the writer has decided durable, shows the new view,
//! and only then answers. Whatever waits shares one sync.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, warn};

use crate::replica::engine::Outcomes;
use crate::replica::view::View;
use crate::runtime::lock::lock;
use crate::runtime::queue::{Answer, Committed, SubmitError, refuse};
use crate::store::checkpoint::Frozen;
use crate::store::error::StoreError;
use crate::store::log::appender::Log;
use crate::store::log::group::Entry;

/// Jobs that may wait. The writer waits with more, and what waits for the writer meanwhile becomes
/// one larger batch.
const WAITING: usize = 4;
/// Time without anything to do after which the log gives back the space that it keeps to be
/// written over: longer than a game's pause between two saves, and than what a file is left to
/// rest before it is compacted.
const QUIET: Duration = Duration::from_secs(20);

enum Job {
    /// To be made durable with the next sync.
    Append(Entry),
    /// To be shown and answered once everything in front of it is durable.
    Done(Arc<View>, u64, Outcomes, Vec<Answer>),
    /// To be answered once everything in front of it is durable.
    Failed(Arc<StoreError>, Vec<Answer>),
    /// To go on in a new segment, and to hand the rows over once everything in front is durable.
    Checkpoint(Frozen),
    /// To go on after a failure; answers with what was durable last.
    Resume(Sender<Option<Durable>>),
}

/// The newest view whose commit is durable, and the commit's number.
type Durable = (Arc<View>, u64);

/// Why the log takes nothing at present.
#[derive(Clone)]
pub struct Broken {
    /// What went wrong.
    pub error: Arc<StoreError>,
}

/// The writer's side of the log thread.
pub struct LogThread {
    jobs: Option<SyncSender<Job>>,
    broken: Arc<Mutex<Option<Broken>>>,
    thread: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts the thread. Memtables to be flushed go to `checkpoints`.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub fn start(
        name: &str,
        log: Log,
        views: watch::Sender<Arc<View>>,
        checkpoints: Option<Sender<Frozen>>,
        durable: Durable,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = sync_channel(WAITING);
        let broken = Arc::<Mutex<Option<Broken>>>::default();
        let keeper = Keeper {
            log,
            views,
            checkpoints,
            durable,
            broken: Arc::clone(&broken),
        };
        let thread = std::thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || keeper.run(&inbox))?;
        Ok(Self {
            jobs: Some(jobs),
            broken,
            thread: Some(thread),
        })
    }

    /// Makes an entry durable with the next sync.
    pub fn append(&self, entry: Entry) {
        self.send(Job::Append(entry));
    }

    /// Shows a view and answers once everything so far is durable.
    pub fn done(&self, view: Arc<View>, commit: u64, outcomes: Outcomes, answers: Vec<Answer>) {
        self.send(Job::Done(view, commit, outcomes, answers));
    }

    /// Answers with a failure once everything so far is durable.
    pub fn failed(&self, error: Arc<StoreError>, answers: Vec<Answer>) {
        self.send(Job::Failed(error, answers));
    }

    /// Hands rows to the checkpoint thread once everything so far is durable.
    pub fn checkpoint(&self, frozen: Frozen) {
        self.send(Job::Checkpoint(frozen));
    }

    /// Why the log takes nothing at present, if it does not.
    pub fn broken(&self) -> Option<Broken> {
        lock(&self.broken).clone()
    }

    /// Lets the log take entries again and returns what was durable last.
    pub fn resume(&self) -> Option<Durable> {
        let (answer, durable) = channel();
        self.send(Job::Resume(answer));
        durable.recv().ok().flatten()
    }

    /// Waits until everything is done, and ends the thread.
    pub fn stop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // However it ended, there is nothing left to wait for.
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Without the thread whoever waits for an answer gets none, which tells them.
            let _ = jobs.send(job);
        }
    }
}

struct Keeper {
    log: Log,
    views: watch::Sender<Arc<View>>,
    checkpoints: Option<Sender<Frozen>>,
    durable: Durable,
    broken: Arc<Mutex<Option<Broken>>>,
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Job>) {
        while let Some(first) = self.next(inbox) {
            let mut jobs = vec![first];
            jobs.extend(inbox.try_iter());
            // What belongs to a later segment must not be written to this one.
            let is_checkpoint = |job: &Job| matches!(job, Job::Checkpoint(_) | Job::Resume(_));
            let mut rest = jobs.into_iter().peekable();
            while rest.peek().is_some() {
                let mut part: Vec<Job> = Vec::new();
                while let Some(job) = rest.next_if(|job| !is_checkpoint(job)) {
                    part.push(job);
                }
                part.extend(rest.next());
                // What is durable already does not wait for the sync of what is not.
                let appended = part.iter().position(|job| matches!(job, Job::Append(_)));
                let behind = part.split_off(appended.unwrap_or(part.len()));
                self.finish(part);
                self.append(&behind);
                self.finish(behind);
            }
        }
    }

    /// The next job; `None` when there will be no more.
    fn next(&mut self, inbox: &Receiver<Job>) -> Option<Job> {
        match inbox.recv_timeout(QUIET) {
            Ok(job) => return Some(job),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if lock(&self.broken).is_none()
            && let Err(error) = self.log.shrink()
        {
            warn!(%error, "the log keeps space that it does not need");
        }
        inbox.recv().ok()
    }

    /// Makes all entries among the jobs durable with one sync.
    fn append(&mut self, jobs: &[Job]) {
        let entries = jobs.iter().filter_map(|job| match job {
            Job::Append(entry) => Some(entry.clone()),
            _ => None,
        });
        let entries: Vec<Entry> = entries.collect();
        if lock(&self.broken).is_none()
            && let Err(error) = self.log.append(&entries)
        {
            self.fail(error);
        }
    }

    fn fail(&self, error: StoreError) {
        error!(%error, "the log cannot be written");
        let error = Arc::new(error);
        *lock(&self.broken) = Some(Broken { error });
    }

    fn finish(&mut self, jobs: Vec<Job>) {
        let broken = lock(&self.broken).clone();
        let done = jobs.iter().filter_map(|job| match job {
            Job::Done(view, commit, ..) => Some((Arc::clone(view), *commit)),
            _ => None,
        });
        if let (None, Some(newest)) = (&broken, done.last()) {
            self.durable = newest;
            self.views.send_replace(Arc::clone(&self.durable.0));
        }
        for job in jobs {
            match (job, &broken) {
                (Job::Append(_), _) => {}
                (Job::Done(view, _, outcomes, answers), None) => answer(&view, outcomes, answers),
                (Job::Done(_, _, _, answers), Some(broken)) => refuse(answers, &broken.error),
                (Job::Failed(error, answers), _) => refuse(answers, &error),
                (Job::Checkpoint(frozen), None) => self.hand_over(frozen),
                (Job::Checkpoint(_), Some(_)) => {}
                (Job::Resume(answer), _) => {
                    *lock(&self.broken) = None;
                    let _ = answer.send(Some(self.durable.clone()));
                }
            }
        }
    }

    fn hand_over(&mut self, mut frozen: Frozen) {
        // Without space for a new segment the log goes on in the old one, of which a start then
        // leaves out what the file has.
        if let Err(error) = self.log.rotate() {
            warn!(%error, "the log goes on in its old segment");
        }
        frozen.ends_before(self.log.segment());
        if let Some(checkpoints) = &self.checkpoints {
            // The thread ends after this one.
            let _ = checkpoints.send(frozen);
        }
    }
}

fn answer(view: &Arc<View>, outcomes: Outcomes, answers: Vec<Answer>) {
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        let committed = outcome.map_err(SubmitError::Refused);
        let committed = committed.map(|accepted| Committed {
            accepted,
            view: Arc::clone(view),
        });
        answer.send(committed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Condvar;
    use std::{fmt, io};

    use super::*;
    use crate::clock::SystemClock;
    use crate::replica::command::{Change, Command, Content, Precondition, Write};
    use crate::replica::engine::Engine;
    use crate::store::disk::{Disk, DiskFile, MachineDisk};
    use crate::store::options::StoreOptions;
    use crate::types::cursor::Epoch;
    use crate::types::id::{GameId, ReplicaId};

    /// A disk whose syncs wait for leave, once some have been counted out.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<Option<usize>>, Condvar)>);

    impl Gate {
        fn allow(&self, syncs: Option<usize>) {
            *lock(&self.0.0) = syncs;
            self.0.1.notify_all();
        }

        fn pass(&self) {
            let waiting = lock(&self.0.0);
            let waiting = self.0.1.wait_while(waiting, |left| *left == Some(0));
            if let Some(left) = waiting.unwrap().as_mut() {
                *left -= 1;
            }
        }
    }

    impl fmt::Debug for Gate {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Gate")
        }
    }

    impl Disk for Gate {
        fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            let file = MachineDisk.open(path, create)?;
            Ok(Arc::new(GatedFile(file, self.clone())))
        }

        fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
            MachineDisk.list(folder)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            MachineDisk.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            MachineDisk.remove(path)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            MachineDisk.sync_folder(folder)
        }

        fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
            MachineDisk.free_bytes(folder)
        }
    }

    #[derive(Debug)]
    struct GatedFile(Arc<dyn DiskFile>, Gate);

    impl DiskFile for GatedFile {
        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buffer)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, bytes)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.0.set_len(length)
        }

        fn sync(&self) -> io::Result<()> {
            self.1.pass();
            self.0.sync()
        }
    }

    fn put(id: &str) -> Command {
        Command::Write(vec![Write {
            id: GameId::new(id).unwrap(),
            precondition: Precondition::None,
            change: Change::Put(Content::new(id.as_bytes(), None)),
        }])
    }

    #[tokio::test]
    async fn what_is_durable_is_answered_before_the_next_sync() {
        let folder = tempfile::tempdir().unwrap();
        let (gate, path) = (Gate::default(), folder.path().join("t.redb"));
        let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
        let (disk, epoch) = (Arc::new(gate.clone()), Epoch(1));
        let opened = Engine::open_on(disk, &path, ReplicaId(1), epoch, options, wall).unwrap();
        let mut engine = opened.engine;
        let durable = (engine.view(), engine.commit_number());
        let (views, _) = watch::channel(engine.view());
        let mut log = LogThread::start("t", opened.log, views, None, durable).unwrap();
        gate.allow(Some(0));
        let mut answers = Vec::new();
        for id in ["a", "b"] {
            let decided = engine.decide(vec![put(id)], BTreeMap::default()).unwrap();
            log.append(decided.entry.clone().unwrap());
            let view = engine.apply(&decided).unwrap();
            let (answer, answered) = Answer::new(None);
            log.done(view, engine.commit_number(), decided.outcomes, vec![answer]);
            answers.push(answered);
        }
        // The first sync makes one write durable, or both when the second came in time; whoever is
        // durable is answered with no further sync.
        gate.allow(Some(1));
        let (mut second, first) = (answers.pop().unwrap(), answers.pop().unwrap());
        let first = tokio::time::timeout(Duration::from_secs(60), first).await;
        first.expect("answered").unwrap().unwrap();
        gate.allow(None);
        let second = tokio::time::timeout(Duration::from_secs(60), &mut second).await;
        second.expect("answered").unwrap().unwrap();
        log.stop();
    }
}
