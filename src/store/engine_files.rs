//! The engine's files of a namespace, one for each shard, in the hands of the one thread that
//! carries checkpoints out. All of them change, or none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crate::store::backend::OpenFile;
use crate::store::checkpoint::{Flushed, Frozen, Share, set_position};
use crate::store::compaction::{CompactionProgress, rows_of};
use crate::store::cut::Cut;
use crate::store::directory::unusable;
use crate::store::disk::Disk;
use crate::store::engine_file::EngineFile;
use crate::store::error::StoreError;
use crate::store::guard::guarded;
use crate::store::log::place::LogPosition;
use crate::store::open_file::{
    check_not_empty, empty_database, open_database, set_identity, sync_directory,
};
use crate::store::options::StoreOptions;
use crate::store::pending::{Span, carry_over, span_of, write_pending};
use crate::store::rows::Identity;
use crate::store::shard_set::{Member, remove_stale, set_of};
use crate::store::shards::EngineTables;
use crate::types::lineage::Provenance;

/// Waste that is not worth a compaction, in bytes.
const WASTE_MIN: u64 = 8 << 20;

/// A namespace's files, open for writing.
pub struct EngineFiles {
    disk: Arc<dyn Disk>,
    options: StoreOptions,
    cut: Cut,
    /// The one that stands for the namespace.
    first: EngineFile,
    /// Those of the other shards, in order.
    others: Vec<EngineFile>,
    compaction: Option<Round>,
    /// Files that were compacted and have no name any more, for as long as they are read.
    retired: Vec<OpenFile>,
}

/// What happens to the files of shards that are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// The namespace is not opened.
    Refuse,
    /// They count as empty: for looking at what is left.
    LeaveOut,
}

/// A compaction of all files, one after the other.
#[derive(Default)]
struct Round {
    /// The file that is being copied.
    file: usize,
    /// Rows and bytes of all files, and what was done in those before.
    done: CompactionProgress,
}

impl EngineFiles {
    /// Opens all files of the namespace whose first file is at `path`.
    ///
    /// # Errors
    /// [`StoreError`] when one of them is missing, damaged or an older copy, unless those are to be
    /// left out; the first one is needed in any case.
    pub fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        options: StoreOptions,
        damage: OnDamage,
    ) -> Result<Self, StoreError> {
        let first = open_database(&**disk, path, options)?;
        let (set, cut) = guarded(|| set_of(path, &first.database))?;
        sync_directory(&**disk, path)?;
        // The memory for pages is that of the namespace.
        let options = StoreOptions {
            cache_bytes: options.cache_bytes / cut.count(),
            ..options
        };
        let file = |member: Member, opened: OpenFile| {
            let shard = usize::from(member.shard);
            let (disk, path) = (Arc::clone(disk), member.path(path));
            EngineFile::new(disk, path, options, Share { cut, shard }, opened)
        };
        let mut files = Self {
            first: file(set, first),
            others: Vec::new(),
            disk: Arc::clone(disk),
            options,
            cut,
            compaction: None,
            retired: Vec::new(),
        };
        let (position, span) = files.stands()?;
        for shard in 1..cut.count() as u8 {
            let member = Member { shard, ..set };
            let opened = open_shard(&**disk, path, member, options).and_then(|opened| {
                let mut opened = file(member, opened);
                files.bring_up(&mut opened, position, span)?;
                Ok(opened)
            });
            files.others.push(match (opened, damage) {
                (Err(StoreError::Damaged(_)), OnDamage::LeaveOut) => {
                    file(member, empty_database()?)
                }
                (opened, _) => opened?,
            });
        }
        for file in files.all_mut() {
            match (file.renew_tree(), damage) {
                // Whoever looks at what is left makes the tree anew from that.
                (Err(StoreError::Damaged(_)), OnDamage::LeaveOut) => {}
                (renewed, _) => renewed?,
            }
        }
        let used: Vec<PathBuf> = files.others.iter().map(|file| file.path().into()).collect();
        remove_stale(&**disk, path, &used);
        Ok(files)
    }

    /// Into how many shards the namespace is cut.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Up to where the files hold what the log says.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn stands_at(&self) -> Result<LogPosition, StoreError> {
        self.first.position()
    }

    /// Where the first file stands, and what it has for the others.
    fn stands(&self) -> Result<(LogPosition, Option<Span>), StoreError> {
        let span = guarded(|| span_of(self.first.database()?))?;
        Ok((self.first.position()?, span))
    }

    /// Brings the file of another shard to where the first one stands.
    fn bring_up(
        &self,
        file: &mut EngineFile,
        position: LogPosition,
        span: Option<Span>,
    ) -> Result<(), StoreError> {
        let stands = file.position()?;
        if stands.commit == position.commit {
            return Ok(());
        }
        let is_pending =
            |span: Span| span.to.commit == position.commit && span.from.commit == stands.commit;
        if !span.is_some_and(is_pending) {
            let what = format!(
                "it stands at commit {}, but the namespace at commit {}: one of its files is an \
                 older copy; put the right one back",
                stands.commit, position.commit
            );
            return Err(StoreError::damaged(what).of_file(file.path()));
        }
        let first = self.first.database()?;
        let carried = file.commit(|transaction, share| {
            carry_over(first, share.shard, transaction)?;
            set_position(transaction, position)
        });
        carried.map_err(|error| error.of_file(file.path()))
    }

    /// Writes the rows of a frozen memtable and commits them durably.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails. The log has the rows in any case; the files are closed
    /// then, and all views of them fail, until [`EngineFiles::reopen`] or the next flush.
    pub fn flush(&mut self, frozen: &Frozen) -> Result<Flushed, StoreError> {
        if self.is_closed() {
            self.reopen()?;
        }
        // When the commit that seemed to fail had taken place, the rows are written once more: what
        // a failed sync has left is seen, but may not be on the disk, and only writing it again
        // puts it there.
        let flushed = self.try_flush(frozen);
        if flushed.is_err() {
            self.close();
        }
        flushed
    }

    fn try_flush(&mut self, frozen: &Frozen) -> Result<Flushed, StoreError> {
        let (cut, from) = (self.cut, self.first.position()?);
        self.first.flush(frozen, |transaction| {
            if cut.count() == 1 {
                return Ok(());
            }
            let to = frozen.position;
            write_pending(transaction, &frozen.memtable, cut, Span { from, to })
        })?;
        let lanes = self.options.flush_threads.max(1);
        flush_all(&mut self.others, frozen, lanes)?;
        self.flushed()
    }

    fn flushed(&self) -> Result<Flushed, StoreError> {
        Ok(Flushed {
            tables: Arc::new(self.tables()?),
            position: self.first.position()?,
        })
    }

    /// All tables as the newest checkpoint left them.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn tables(&self) -> Result<EngineTables, StoreError> {
        let tables: Result<_, _> = self.all().map(EngineFile::tables).collect();
        EngineTables::new(tables?, self.cut)
    }

    fn all(&self) -> impl Iterator<Item = &EngineFile> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut EngineFile> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    /// True when the files have to be opened again before anything can be read from them: after a
    /// commit that failed, and after any failure of the disk.
    pub fn is_closed(&self) -> bool {
        self.all().any(EngineFile::is_closed)
    }

    fn close(&mut self) {
        self.give_up_compaction();
        self.all_mut().for_each(EngineFile::close);
    }

    /// Opens the files again after a failure.
    ///
    /// # Errors
    /// [`StoreError`] when that fails too.
    pub fn reopen(&mut self) -> Result<Flushed, StoreError> {
        self.close();
        let flushed = self.try_reopen();
        if flushed.is_err() {
            self.close();
        }
        flushed
    }

    fn try_reopen(&mut self) -> Result<Flushed, StoreError> {
        self.all_mut().try_for_each(EngineFile::reopen)?;
        let (position, span) = self.stands()?;
        let mut others = std::mem::take(&mut self.others);
        let brought = others
            .iter_mut()
            .try_for_each(|file| self.bring_up(file, position, span));
        self.others = others;
        brought?;
        self.flushed()
    }

    /// Writes what the namespace is and where it comes from; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn set_identity(
        &mut self,
        identity: &Identity,
        provenance: &Provenance,
    ) -> Result<Flushed, StoreError> {
        let first = &mut self.first;
        first.commit(|transaction, _| set_identity(transaction, identity, provenance))?;
        self.flushed()
    }

    /// Bytes that the disk has given to the files.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the disk fails.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.all().map(EngineFile::bytes).sum()
    }

    /// Bytes of the largest file: a compaction needs as much space, and no more.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the disk fails.
    pub fn largest_bytes(&self) -> Result<u64, StoreError> {
        let bytes: Result<Vec<u64>, _> = self.all().map(EngineFile::bytes).collect();
        Ok(bytes?.into_iter().max().unwrap_or_default())
    }

    /// A look at the files as they are now, for another thread: it takes long.
    ///
    /// # Errors
    /// [`StoreError`] when the engine or the disk fails.
    pub fn survey(&self) -> Result<Survey, StoreError> {
        Ok(Survey {
            tables: self.tables()?,
            bytes: self.bytes()?,
        })
    }

    /// Bytes that can still be written beside the files.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the disk fails.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let folder = self.first.path().parent().unwrap_or(Path::new("."));
        let free = self.disk.free_bytes(folder);
        free.map_err(|source| unusable(folder, source))
    }

    /// Begins to copy the live rows of each file into a new one, which then takes its place.
    ///
    /// # Errors
    /// [`StoreError`] when the new file cannot be made.
    pub fn begin_compaction(&mut self) -> Result<(), StoreError> {
        if self.compaction.is_some() {
            return Ok(());
        }
        let mut round = Round::default();
        round.done.bytes_before = self.bytes()?;
        for file in self.all() {
            round.done.rows_total += guarded(|| rows_of(file.database()?))?;
        }
        self.first.begin_compaction()?;
        self.compaction = Some(round);
        Ok(())
    }

    /// True while a compaction goes on.
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some() && self.all().any(EngineFile::is_compacting)
    }

    /// Copies a slice of rows. When a file is done, all tables are returned, those of its copy among
    /// them; views of the old file keep working. There may be more files then.
    ///
    /// # Errors
    /// [`StoreError`] when a file fails; the compaction is given up then, and nothing is lost.
    pub fn compact_slice(
        &mut self,
        progress: &mut CompactionProgress,
    ) -> Result<Option<Flushed>, StoreError> {
        let Some(mut round) = self.compaction.take() else {
            return Ok(None);
        };
        let mut within = CompactionProgress::default();
        let file = self.all_mut().nth(round.file);
        let retired = file.map(|file| file.compact_slice(&mut within));
        let retired = retired.transpose()?.flatten();
        *progress = CompactionProgress {
            rows: round.done.rows + within.rows,
            ..round.done
        };
        let Some(retired) = retired else {
            self.compaction = Some(round);
            return Ok(None);
        };
        self.retired.push(retired);
        round.file += 1;
        round.done = *progress;
        let flushed = self.flushed().and_then(|flushed| {
            let next = self.all_mut().nth(round.file);
            let begun = next.map(EngineFile::begin_compaction).transpose()?;
            if begun.is_some() {
                self.compaction = Some(round);
            } else {
                progress.bytes_after = self.bytes().unwrap_or_default();
            }
            Ok(flushed)
        });
        if flushed.is_err() {
            // What is read from now on is to come from the copy.
            self.close();
        }
        flushed.map(Some)
    }

    /// True while files of before compactions are kept for who reads them.
    pub fn keeps_old_files(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Closes the files of before compactions that nobody reads any more, which gives their space
    /// back.
    pub fn close_unread(&mut self) {
        self.retired.retain(OpenFile::is_read);
    }

    /// Stops a compaction; a file that is not copied yet stays as it is.
    pub fn give_up_compaction(&mut self) {
        self.compaction = None;
        self.all_mut().for_each(EngineFile::give_up_compaction);
    }
}

/// Opens the file of another shard.
/// It is damage when that is missing, or another one than it should be.
fn open_shard(
    disk: &dyn Disk,
    first: &Path,
    member: Member,
    options: StoreOptions,
) -> Result<OpenFile, StoreError> {
    let shard = member.shard;
    let path = member.path(first);
    match disk.open(&path, false) {
        Ok(file) => check_not_empty(&*file, &path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!(
                "shard {shard} of {} is missing; put it back",
                first.display()
            );
            return Err(StoreError::damaged(what).of_file(&path));
        }
        Err(source) => return Err(unusable(&path, source)),
    }
    let opened = open_database(disk, &path, options)?;
    let found = guarded(|| Member::of(&opened.database));
    let (found, _) = found.map_err(|error| error.of_file(&path))?;
    if found == member {
        return Ok(opened);
    }
    let what = format!("it is not shard {shard} of {}", first.display());
    Err(StoreError::damaged(what).of_file(&path))
}

/// Carries a checkpoint out in several files, in so many threads.
fn flush_all(files: &mut [EngineFile], frozen: &Frozen, lanes: usize) -> Result<(), StoreError> {
    let flush = |files: &mut [EngineFile]| {
        let mut files = files.iter_mut();
        files.try_for_each(|file| file.flush(frozen, |_| Ok(())))
    };
    let each = files.len().div_ceil(lanes).max(1);
    thread::scope(|scope| {
        let mut lanes = files.chunks_mut(each);
        let own = lanes.next().unwrap_or_default();
        let others: Vec<_> = lanes
            .map(|lane| {
                let thread = thread::Builder::new().name("checkpoint-shards".to_owned());
                thread.spawn_scoped(scope, move || flush(lane))
            })
            .collect();
        let mut outcome = flush(own);
        for other in others {
            let flushed = match other {
                Ok(thread) => thread.join().unwrap_or_else(|_| {
                    Err(StoreError::damaged("a checkpoint ended in the middle"))
                }),
                Err(source) => Err(redb::Error::Io(source).into()),
            };
            outcome = outcome.and(flushed);
        }
        outcome
    })
}

/// The files as they were at one moment.
pub struct Survey {
    tables: EngineTables,
    bytes: u64,
}

impl Survey {
    /// True when a compaction would give much back. Looks at every page of the files.
    ///
    /// # Errors
    /// [`StoreError`] when the engine fails.
    pub fn is_wasteful(&self) -> Result<bool, StoreError> {
        let live = guarded(|| self.tables.stored_bytes())?;
        Ok(self.bytes > live + live / 10 * 4 + WASTE_MIN)
    }
}
