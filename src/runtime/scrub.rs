//! The background scrub of each namespace: reads everything now and then, slowly, and has damaged
//! bytes healed by peers that hold them. Damage that reads hit is healed at once.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::rfc3339;
use crate::replica::command::{Command, Healing};
use crate::replica::scrub::{Finding, Scrub, holders};
use crate::replica::view::View;
use crate::runtime::damage::{Damaged, PassStatus};
use crate::runtime::namespace::OpenNamespace;
use crate::runtime::replica::Replica;
use crate::store::body::Body;
use crate::store::error::StoreError;
use crate::store::rows::Placed;
use crate::sync::transfer::STREAMED_FROM;
use crate::types::hash::ContentHash;
use crate::types::id::Namespace;

/// How often damage that reads hit is looked for, and new namespaces.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often peers are asked again for bytes that none of them had.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// A pass does not begin sooner after a start: there is enough to do then.
const SETTLE: Duration = Duration::from_secs(60);
/// Bytes that are read in one go.
const STEP_BYTES: u64 = 1 << 20;
/// Contents that are healed together, and their bytes.
const HEAL_TOGETHER: usize = 64;
const HEAL_BYTES: u64 = 32 << 20;

/// How scrubs work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// State bytes that a scrub reads in a second; 0 for no scrub.
    pub bytes_per_second: u64,
    /// Time from the begin of one pass to the begin of the next one, at least.
    pub interval: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            bytes_per_second: 8 << 20,
            interval: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The bytes of contents, in order; `None` for those that no peer has.
pub type Fetched<'a> = Pin<Box<dyn Future<Output = Vec<Option<Body>>> + Send + 'a>>;

/// Asks peers for bytes by their hash.
pub trait ContentSource: Send + Sync {
    /// Asks for the bytes of contents of a namespace. What comes back has its hash.
    fn fetch<'a>(&'a self, namespace: &'a Arc<OpenNamespace>, wanted: &'a [Damaged])
    -> Fetched<'a>;
}

/// Runs a scrub for every namespace that is open, until `stop`.
pub async fn scrub_all(
    replica: Arc<Replica>,
    source: Arc<dyn ContentSource>,
    options: ScrubOptions,
    stop: CancellationToken,
) {
    let mut scrubbed: HashMap<Namespace, CancellationToken> = HashMap::new();
    loop {
        // By the token, not by the name: one that was dropped and made anew needs a scrub of its own.
        scrubbed.retain(|_, closed| !closed.is_cancelled());
        for namespace in replica.namespaces() {
            if scrubbed.contains_key(namespace.name()) {
                continue;
            }
            let closed = namespace.closed();
            scrubbed.insert(namespace.name().clone(), closed.clone());
            let scrubber = Scrubber {
                replica: Arc::clone(&replica),
                source: Arc::clone(&source),
                namespace,
                options,
            };
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = closed.cancelled() => {}
                    () = scrubber.run() => {}
                }
            });
        }
        if stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

struct Scrubber {
    replica: Arc<Replica>,
    source: Arc<dyn ContentSource>,
    namespace: Arc<OpenNamespace>,
    options: ScrubOptions,
}

/// A pass that goes on.
struct Pass {
    scrub: Scrub,
    so_far: SoFar,
}

/// What a pass has come to.
#[derive(Clone, Copy)]
struct SoFar {
    begun: Instant,
    bytes: u64,
    faults: u64,
}

impl Scrubber {
    async fn run(self) {
        let mut due = Instant::now() + self.options.interval.min(SETTLE);
        let mut asked: Option<Instant> = None;
        let mut pass: Option<Pass> = None;
        loop {
            let is_new = self.take_suspects().await;
            let is_open = !self.namespace.damage().contents(None, 1).is_empty();
            if is_open && (is_new || asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN)) {
                self.heal().await;
                asked = Some(Instant::now());
            }
            if pass.is_none() && self.options.bytes_per_second > 0 && Instant::now() >= due {
                due = Instant::now() + self.options.interval;
                pass = Some(self.begin());
            }
            pass = match pass {
                Some(pass) => self.go_on(pass, &mut asked).await,
                None => {
                    sleep(LOOK_EVERY).await;
                    None
                }
            };
        }
    }

    fn begin(&self) -> Pass {
        let damage = self.namespace.damage();
        damage.begin_pass();
        damage.forget_others();
        Pass {
            scrub: Scrub::new(self.namespace.view()),
            so_far: SoFar {
                begun: Instant::now(),
                bytes: 0,
                faults: 0,
            },
        }
    }

    /// One step of a pass, and as long a rest as keeps it slow enough; `None` when it has ended.
    async fn go_on(&self, pass: Pass, asked: &mut Option<Instant>) -> Option<Pass> {
        let (newest, damage) = (self.namespace.view(), self.namespace.damage());
        let Pass {
            mut scrub,
            mut so_far,
        } = pass;
        let read = self.namespace.read(move |_| {
            let step = scrub.step(&newest, STEP_BYTES)?;
            Ok::<_, StoreError>((scrub, step))
        });
        let (scrub, step) = match read.await {
            Ok(read) => read,
            Err(error) => {
                warn!(namespace = %self.namespace.name(), %error, "the scrub is given up for now");
                self.end(so_far);
                return None;
            }
        };
        so_far.bytes += step.bytes;
        damage.advance(so_far.bytes);
        for finding in step.found {
            so_far.faults += 1;
            if self.note(finding) {
                // Peers are asked before the next step.
                *asked = None;
            }
        }
        if step.is_done {
            self.end(so_far);
            return None;
        }
        let rate = self.options.bytes_per_second.max(1) as f64;
        let due = so_far.begun + Duration::from_secs_f64(so_far.bytes as f64 / rate);
        sleep_until(due.max(Instant::now() + Duration::from_millis(1))).await;
        Some(Pass { scrub, so_far })
    }

    fn end(&self, pass: SoFar) {
        let SoFar { bytes, faults, .. } = pass;
        let seconds = pass.begun.elapsed().as_secs_f64();
        info!(namespace = %self.namespace.name(), bytes, faults, seconds, "scrubbed");
        self.namespace.damage().end_pass(PassStatus {
            ended: rfc3339(self.replica.wall().now_millis()),
            seconds,
            bytes,
            faults,
        });
    }

    fn note(&self, finding: Finding) -> bool {
        let (kind, what, detail) = (finding.kind, finding.what.clone(), finding.detail.clone());
        let is_new = self.namespace.damage().add(finding);
        if is_new {
            warn!(namespace = %self.namespace.name(), kind, what, detail, "damage found");
        }
        is_new
    }

    /// Lists what reads found damaged; true when that is something new.
    async fn take_suspects(&self) -> bool {
        let mut suspects = self.namespace.view().snapshot().take_suspects();
        suspects.retain(|content| !self.namespace.damage().knows(content));
        if suspects.is_empty() {
            return false;
        }
        let found = self
            .namespace
            .read(move |view| hurt_copies(view, &suspects));
        let found = found.await.unwrap_or_default();
        let new = found
            .into_iter()
            .filter(|finding| self.note(finding.clone()));
        new.count() > 0
    }

    /// Asks peers for the bytes of all damaged contents that are listed.
    async fn heal(&self) {
        let mut after = None;
        loop {
            let damaged = self.namespace.damage().contents(after, HEAL_TOGETHER);
            let mut bytes = 0;
            let fits = |one: &&Damaged| {
                bytes += one.size;
                bytes <= HEAL_BYTES || bytes == one.size
            };
            let damaged: Vec<Damaged> = damaged.iter().take_while(fits).copied().collect();
            let Some(last) = damaged.last() else {
                return;
            };
            after = Some(*last);
            let hurt = self.still_hurt(damaged, Look::Short).await;
            if !hurt.is_empty() {
                self.heal_these(&hurt).await;
            }
        }
    }

    async fn heal_these(&self, hurt: &[Damaged]) {
        let bodies = self.source.fetch(&self.namespace, hurt).await;
        let bodies: Vec<Body> = bodies.into_iter().flatten().collect();
        let hashes: BTreeSet<ContentHash> = bodies.iter().map(|body| body.hash).collect();
        if hashes.is_empty() {
            return;
        }
        let held = self.namespace.read(move |view| holders(view, &hashes));
        let Ok(held) = held.await else {
            return;
        };
        let healing = |one: &Damaged| {
            let body = bodies.iter().find(|body| body.hash == one.content)?;
            let holders = held.get(&one.content);
            Some(Healing {
                key: one.key,
                body: body.clone(),
                references: holders.map_or(0, |holders| holders.references),
            })
        };
        let healings = hurt.iter().filter_map(healing).collect();
        if let Err(error) = self.namespace.submit(Command::Heal(healings)).await {
            warn!(namespace = %self.namespace.name(), %error, "damage could not be healed yet");
            return;
        }
        let left = self.still_hurt(hurt.to_vec(), Look::Whole).await;
        let healed = hurt.len() - left.len();
        let open = self.namespace.damage().status().open;
        info!(namespace = %self.namespace.name(), healed, open, "healed with the bytes of peers");
    }

    /// Those that are damaged still; the others are taken off the list.
    async fn still_hurt(&self, damaged: Vec<Damaged>, look: Look) -> Vec<Damaged> {
        let looked = damaged.clone();
        let hurt = self.namespace.read(move |view| {
            let hurt = looked.into_iter().filter(|one| is_hurt(view, one, look));
            Ok::<_, StoreError>(hurt.collect::<Vec<_>>())
        });
        let Ok(hurt) = hurt.await else {
            return damaged;
        };
        for one in damaged.iter().filter(|one| !hurt.contains(one)) {
            self.namespace.damage().close(one);
        }
        hurt
    }
}

/// How closely damaged bytes are looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Large ones are taken for damaged as long as a state has them: they are looked at every few
    /// seconds while no peer can help.
    Short,
    /// All are read.
    Whole,
}

/// True while a state has the content, and its bytes are not right.
fn is_hurt(view: &View, damaged: &Damaged, look: Look) -> bool {
    let is_taken_for_hurt = look == Look::Short && damaged.size > STREAMED_FROM;
    let Ok(held) = view.versions(&damaged.key) else {
        return true;
    };
    let mut copies = held
        .iter()
        .filter(|placed| !placed.version.tombstone && placed.version.content == damaged.content);
    let is_whole = |placed: &Placed| {
        let checked = view
            .snapshot()
            .check_content(&placed.version, &placed.placement);
        checked.is_ok()
    };
    copies.any(|placed| is_taken_for_hurt || !is_whole(placed))
}

/// The states that have damaged copies of contents.
fn hurt_copies(view: &View, contents: &BTreeSet<ContentHash>) -> Result<Vec<Finding>, StoreError> {
    let mut found = Vec::new();
    for (content, holders) in holders(view, contents)? {
        for (key, (what, size)) in holders.states {
            let damaged = Damaged { key, content, size };
            if is_hurt(view, &damaged, Look::Whole) {
                found.push(Finding {
                    kind: "content",
                    what,
                    key,
                    content: Some((content, size)),
                    detail: "a read found its bytes missing or damaged".to_owned(),
                });
            }
        }
    }
    Ok(found)
}
