//! Repairing a namespace that no process serves: everything that is left of its file and its log goes
//! into a new file, with ids, feed, tree and reference counts made anew. The old files are kept under
//! other names.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::replica::command::Effect;
use crate::replica::facts::Facts;
use crate::replica::findings::Fault;
use crate::replica::inspect::{OnProgress, inspect};
use crate::replica::journal;
use crate::replica::rebuild::{Builder, Salvaged, Whole};
use crate::replica::repair_large::{LargeContents, save_stages, with_bytes};
use crate::replica::repair_log::LogBytes;
use crate::replica::repair_roots::{RootLogKept, save_root_log, save_witnessed};
use crate::store::body::Body;
use crate::store::claim::Claim;
use crate::store::directory::repair_draft_of;
use crate::store::disk::{Disk, MachineDisk};
use crate::store::error::StoreError;
use crate::store::log::place::{LogPlace, LogPosition};
use crate::store::log::replay::read_segments;
use crate::store::log::salvage::{LogRemains, salvage_log};
use crate::store::rows::{Identity, Placed, Placement};
use crate::store::salvage::{Remains, Saved};
use crate::store::set_aside::set_aside;
use crate::store::shard_set::shard_files;
use crate::types::cursor::Epoch;
use crate::types::hash::{ContentHash, StateKey};
use crate::types::id::Namespace;
use crate::types::limits::STAGED_FROM;
use crate::types::lineage::{Parting, Provenance};
use crate::types::seen::Seen;

/// Losses that are listed at most.
const LOSSES_MAX: usize = 10_000;

/// What a repair came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Records that were saved, deleted states included.
    pub records: u64,
    /// What was lost: states by id or key, versions in history, commits of the log.
    pub lost: Vec<Fault>,
    /// Commits that the log must have held and does not any more.
    pub lost_commits: u64,
    /// True when the change feed begins a new life, so that nobody takes this replica to hold what
    /// it held before.
    pub new_epoch: bool,
    /// True when the log of roots begins anew, under another name, which peers notice.
    pub new_root_log: bool,
    /// The files of before, under their new names.
    pub kept: Vec<PathBuf>,
}

impl RepairReport {
    /// Lists something that was lost.
    pub fn lose(&mut self, kind: &'static str, what: &dyn ToString, detail: &dyn ToString) {
        if self.lost.len() < LOSSES_MAX {
            self.lost.push(Fault {
                kind,
                what: what.to_string(),
                detail: detail.to_string(),
            });
        }
    }
}

/// Makes a namespace's file anew out of what is left of it and of its log. A feed that begins a new
/// life is called as the claim has it afresh. When this fails, nothing has changed.
///
/// # Errors
/// [`StoreError`] when the disk fails, the file is not one that this replica and build may use, or
/// the new file has faults of its own.
pub fn repair(
    path: &Path,
    namespace: &Namespace,
    claim: &Claim,
    progress: OnProgress<'_>,
) -> Result<RepairReport, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
    let draft = repair_draft_of(path);
    // What an earlier repair left behind; when there is none, so much the better.
    let _ = disk.remove(&draft);
    let mut repair = Repair::open(&disk, path, claim)?;
    let built = repair.build(&draft, namespace, claim, progress);
    let checked = built.and_then(|()| check_draft(&disk, &draft, namespace, claim));
    if let Err(error) = checked {
        // It is of no use to anybody.
        let _ = disk.remove(&draft);
        return Err(error);
    }
    let mut parts = std::mem::take(&mut repair.log.segments);
    parts.extend(shard_files(&*disk, path)?);
    let Repair { mut report, .. } = repair;
    report.kept = set_aside(path, &draft, &parts)?;
    Ok(report)
}

fn check_draft(
    disk: &Arc<dyn Disk>,
    draft: &Path,
    namespace: &Namespace,
    claim: &Claim,
) -> Result<(), StoreError> {
    let report = inspect(disk, draft, namespace, claim, &mut |_, _| {})?;
    match report.faults.first() {
        None => Ok(()),
        Some(fault) => Err(StoreError::damaged(format!(
            "what was saved of {} has a fault of its own, so nothing was changed ({} {}: {})",
            draft.display(),
            fault.kind,
            fault.what,
            fault.detail
        ))),
    }
}

struct Repair {
    remains: Remains,
    identity: Option<(Identity, Provenance)>,
    /// What else is known.
    facts: Facts,
    log: LogRemains,
    /// What the log says to have been taken in from others.
    taken_in: Seen,
    /// True when the log is as it was written.
    has_log: bool,
    /// The newest commit of file and log.
    newest: u64,
    report: RepairReport,
}

impl Repair {
    fn open(disk: &Arc<dyn Disk>, path: &Path, claim: &Claim) -> Result<Self, StoreError> {
        let remains = Remains::open(disk, path, claim)?;
        let identity = remains.identity().zip(remains.provenance().cloned());
        let head = remains.head();
        let epoch = identity.as_ref().map(|(_, provenance)| provenance.log);
        let place = LogPlace::beside(path, Arc::clone(disk), epoch.unwrap_or(Epoch(0)));
        let from: Option<LogPosition> = head.map(|head| head.log);
        let strict = match (epoch, from) {
            (Some(_), Some(from)) => read_segments(&place, from),
            _ => Err(StoreError::damaged(
                "the file does not say which part of the log it holds",
            )),
        };
        let log = salvage_log(&place, from, epoch)?;
        let mut report = RepairReport {
            lost_commits: log.lost,
            ..RepairReport::default()
        };
        if let Err(error) = &strict {
            let detail = match log.lost {
                0 => "its end may be lost".to_owned(),
                1 => "at least one commit is lost".to_owned(),
                lost => format!("at least {lost} commits are lost"),
            };
            report.lose("log", &"commits", &format!("{detail}: {}", error.bare()));
        }
        Ok(Self {
            facts: Facts {
                seen: remains.sightings(),
                ..Facts::default()
            },
            remains,
            identity,
            taken_in: Seen::default(),
            has_log: strict.is_ok(),
            newest: strict.map_or(0, |replay| replay.newest),
            log,
            report,
        })
    }

    fn build(
        &mut self,
        draft: &Path,
        namespace: &Namespace,
        claim: &Claim,
        progress: OnProgress<'_>,
    ) -> Result<(), StoreError> {
        let head = self.remains.head().filter(|_| self.has_log);
        let mut builder = Builder::create(draft, claim, head.as_ref())?;
        let roots = save_root_log(&self.remains, &mut builder)?;
        save_witnessed(&self.remains, namespace, &mut builder);
        self.save_records(&mut builder, progress)?;
        save_stages(&self.remains, &mut builder)?;
        builder.flush()?;
        let seals = self.has_log && matches!(roots, RootLogKept::Whole);
        self.save_log(&mut builder, seals)?;
        self.report.records = builder.records();
        let keeps = head.is_some() && self.report.lost.is_empty();
        if let RootLogKept::Broken(why) = &roots {
            let detail = format!("{why}; another one begins, which peers notice");
            self.report.lose("roots", &"log of roots", &detail);
            self.report.new_root_log = true;
        }
        let known = self.identity.take();
        let (kept, known) = if keeps { (known, None) } else { (None, known) };
        self.report.new_epoch = kept.is_none();
        let agreements = match kept {
            Some(_) => self.remains.agreements(),
            // What was agreed was agreed about what is lost.
            None => Vec::new(),
        };
        if kept.is_some() {
            // Of what is lost nobody may say that it was taken in.
            let mut taken_in = self.remains.taken_in();
            taken_in.join(&self.taken_in);
            builder.carry_out(Effect::Learn(taken_in));
            builder.flush()?;
        }
        let (identity, provenance) = kept.unwrap_or_else(|| anew(claim, known));
        let (facts, agreements) = (std::mem::take(&mut self.facts), agreements.into_iter());
        let identity = (&identity, &provenance);
        builder.finish(identity, agreements.collect(), facts, self.newest)
    }

    fn save_records(
        &mut self,
        builder: &mut Builder,
        progress: OnProgress<'_>,
    ) -> Result<(), StoreError> {
        let logged = LogBytes::read(&self.remains, &self.log.commits);
        self.remains.add_chunks(logged.chunks);
        let (remains, report) = (&self.remains, &mut self.report);
        let (mut bytes, total) = (0, remains.head().map_or(0, |head| head.root.size));
        let mut sources = Sources {
            remains,
            logged: logged.bodies,
            large: LargeContents::new(logged.lists),
        };
        let seen = remains.records(&mut |saved| {
            bytes += saved.row.leaf.size;
            progress(bytes, total);
            sources.save_record(builder, report, &saved)
        })?;
        builder.flush()?;
        sources.large.finish(builder)?;
        remains.visit_ids(&mut |id, key| {
            if !seen.contains(&key) {
                report.lose("record", &id, &"its record cannot be read");
            }
        });
        Ok(())
    }

    /// Takes in what a commit says beside its changes, as a start does.
    fn learn(&mut self, facts: Facts) {
        for epoch in facts.forgotten {
            self.facts.seen.retain(|seen| seen.epoch != epoch);
        }
        self.facts.seen.extend(facts.seen);
        let newer = |(identity, _): &(Identity, Provenance)| {
            let known = self.identity.as_ref();
            known.is_some_and(|(known, _)| identity.incarnation >= known.incarnation)
        };
        if let Some(named) = facts.identity.filter(newer) {
            self.identity = Some(named);
        }
    }

    /// Carries out what is left of the log, as far as it says all that is needed. Entries of the log of
    /// roots are, when it `seals`: behind one that is lost they would contradict what was signed.
    fn save_log(&mut self, builder: &mut Builder, seals: bool) -> Result<(), StoreError> {
        for (commit, changes) in std::mem::take(&mut self.log.commits) {
            let Ok((facts, effects)) = journal::from_bytes(changes) else {
                self.report.lost_commits += 1;
                let detail = "its changes do not decode";
                self.report
                    .lose("log", &format!("commit {commit}"), &detail);
                continue;
            };
            self.learn(facts);
            for effect in effects {
                let mutation = match effect {
                    Effect::Change(mutation) => mutation,
                    // They were used where bytes were lacking.
                    Effect::Heal(healing) => {
                        if let Some(staged) = healing.body.staged() {
                            builder.flush()?;
                            builder.give_up(staged.stage)?;
                        }
                        continue;
                    }
                    Effect::Stage(staging) => {
                        let staging = with_bytes(&self.remains, staging);
                        builder.carry_out(Effect::Stage(staging));
                        // A few megabytes each.
                        builder.flush()?;
                        continue;
                    }
                    Effect::Seal(_) if !seals => continue,
                    Effect::Learn(seen) => {
                        self.taken_in.join(&seen);
                        continue;
                    }
                    other => {
                        builder.carry_out(other);
                        continue;
                    }
                };
                let id = mutation.record.id.clone();
                if !builder.change(mutation, self.has_log)? {
                    let detail = format!("commit {commit} lacks bytes of an earlier one");
                    self.report.lose("record", &id, &detail);
                }
            }
        }
        builder.flush()
    }
}

/// What a namespace is that begins a new life of its feed.
fn anew(claim: &Claim, known: Option<(Identity, Provenance)>) -> (Identity, Provenance) {
    let identity = Identity {
        replica: claim.replica,
        epoch: claim.fresh,
        incarnation: 0,
    };
    let mut provenance = Provenance::new(claim.fresh);
    if let Some((_, known)) = known {
        provenance.names = known.names;
        // Where the two parted is not known any more: the positions of the feed are others.
        provenance.pending = known.pending.map(|parting| Parting { at: 0, ..parting });
    }
    (identity, provenance)
}

/// Where bytes of states are looked for.
struct Sources<'a> {
    remains: &'a Remains,
    /// Bytes that the log has.
    logged: HashMap<ContentHash, Body>,
    large: LargeContents,
}

impl Sources<'_> {
    /// Saves what is left of a state.
    fn save_record(
        &mut self,
        builder: &mut Builder,
        report: &mut RepairReport,
        saved: &Saved,
    ) -> Result<(), StoreError> {
        let (key, id) = (saved.row.leaf.key, saved.row.record.id.clone());
        let placed = saved.row.placed().map(Placed::of);
        let (versions, lost) = self.load_all(builder, key, placed.collect())?;
        if let Some(version) = lost.first() {
            let what = if versions.is_empty() {
                "its bytes are lost, and with them the state"
            } else {
                "the bytes of one of its versions are lost"
            };
            report.lose(
                "record",
                &id,
                &format!("{what} (content {})", version.version.content),
            );
        }
        if versions.is_empty() {
            return Ok(());
        }
        if saved.may_be_old {
            let detail = "its newest record is lost; an older one takes its place";
            report.lose("record", &id, &detail);
        }
        let mut history = BTreeMap::new();
        for (seq, row) in self.remains.history(key) {
            let (versions, lost) = self.load_all(builder, key, row)?;
            if let Some(version) = lost.first() {
                let detail = format!(
                    "content {} of an older version is lost",
                    version.version.content
                );
                report.lose("history", &id, &detail);
            }
            if !versions.is_empty() {
                history.insert(seq, versions);
            }
        }
        let seq = saved.is_listed.then_some(saved.row.seq);
        builder.add(Salvaged {
            id,
            seq,
            versions,
            history,
        })
    }

    /// The versions whose bytes are there, and those whose bytes are not.
    fn load_all(
        &mut self,
        builder: &mut Builder,
        key: StateKey,
        placed: Vec<Placed>,
    ) -> Result<(Vec<Whole>, Vec<Placed>), StoreError> {
        let (mut whole, mut lost) = (Vec::new(), Vec::new());
        for placed in placed {
            let body = self.body(builder, key, &placed)?;
            let has_expired = placed.version.expires_at.is_some();
            let is_bare = placed.placement == Placement::Nothing && has_expired;
            if placed.version.tombstone || is_bare || body.is_some() {
                whole.push(Whole {
                    version: placed.version,
                    body,
                });
            } else {
                lost.push(placed);
            }
        }
        Ok((whole, lost))
    }

    /// The bytes of a version, if they are still anywhere.
    fn body(
        &mut self,
        builder: &mut Builder,
        key: StateKey,
        Placed { version, placement }: &Placed,
    ) -> Result<Option<Body>, StoreError> {
        let is_bare = *placement == Placement::Nothing && version.expires_at.is_some();
        if version.tombstone || is_bare {
            return Ok(None);
        }
        let content = version.content;
        let body = if version.size > STAGED_FROM {
            self.large.save(self.remains, builder, version, placement)?
        } else {
            let bytes = self.remains.content(key, version, placement);
            bytes.map(|bytes| Body::of_hashed(content, &bytes))
        };
        let whole_of = |body: &&Body| body.unpacked().is_some();
        Ok(body.or_else(|| self.logged.get(&content).filter(whole_of).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::replica::engine::{Engine, Opened};
    use crate::store::options::StoreOptions;
    use crate::types::id::ReplicaId;
    use crate::types::lineage::Sighting;

    #[test]
    fn what_the_log_alone_knows_of_peers_and_of_the_name_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.redb");
        let open = || {
            let (options, wall) = (StoreOptions::default(), Arc::new(SystemClock));
            Engine::open(&path, ReplicaId(1), Epoch(1), options, wall).unwrap()
        };
        let Opened {
            mut engine,
            mut log,
            file,
            ..
        } = open();
        let seen = Sighting {
            epoch: Epoch(9),
            openings: vec![(90, 0)],
            seq: 3,
        };
        engine.remember(Facts {
            seen: vec![seen.clone()],
            ..Facts::default()
        });
        let noted = engine.decide(Vec::new(), BTreeMap::new()).unwrap();
        let named = |engine: &mut Engine| engine.decide_name(ReplicaId(2));
        for decided in [noted, named(&mut engine)] {
            let mut entry = decided.entry.clone().unwrap();
            entry.commit = engine.commit_number() + 1;
            log.append(&[entry]).unwrap();
            engine.apply(&decided).unwrap();
        }
        drop((engine, log, file));
        let mut claim = Claim::plain(ReplicaId(2), Epoch(5));
        claim.names.push(ReplicaId(1));
        let report = repair(
            &path,
            &Namespace::default_namespace(),
            &claim,
            &mut |_, _| {},
        )
        .unwrap();
        assert_eq!((&report.lost[..], report.new_epoch), (&[][..], false));
        let disk: Arc<dyn Disk> = Arc::new(MachineDisk);
        let remains = Remains::open(&disk, &path, &claim).unwrap();
        assert_eq!(remains.sightings(), [seen]);
        let identity = remains.identity().unwrap();
        assert_eq!((identity.replica, identity.epoch), (ReplicaId(2), Epoch(1)));
        assert_eq!(remains.provenance().unwrap().names, [ReplicaId(1)]);
    }
}
