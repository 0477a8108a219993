//! Making a backup: what changed since the newest one in the folder, or everything.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tracing::warn;

use crate::backup::block::FORMAT;
use crate::backup::chain::Chain;
use crate::backup::changes::{Change, find};
use crate::backup::destination::{Destination, Draft, folder_name};
use crate::backup::entry::{Entry, Held, Run, extend};
use crate::backup::error::BackupError;
use crate::backup::index::PieceIndex;
use crate::backup::manifest::{CHAIN_MAX, Manifest, NamespacePart, Written};
use crate::backup::watch::Watch;
use crate::backup::writer::DataWriter;
use crate::clock::rfc3339;
use crate::delta::chunker::{CHUNK_MAX, CHUNK_MIN, chunks};
use crate::merkle::node::Summary;
use crate::replica::view::View;
use crate::store::error::StoreError;
use crate::store::rows::{Placement, RecordRow};
use crate::store::stage::ChunkEntry;
use crate::types::binary::encode;
use crate::types::hash::{ChunkHash, ContentHash, ContentHasher, StateKey};
use crate::types::id::{Namespace, ReplicaId};
use crate::types::version::Version;

/// Pieces from this many bytes on are looked up by hash. No chunk but a state's last one is
/// shorter; smaller states cost less than looking for them.
const INDEXED_MIN: usize = CHUNK_MIN;
/// Superseded versions are kept while the state's entry has fewer bytes than this.
const ENTRY_MAX: usize = 16 << 20;

/// Where contents are that a state's entry need not bring again.
type Places = HashMap<ContentHash, Vec<Run>>;

/// What to back up, and how.
#[derive(Debug, Clone, Copy)]
pub struct SaveOptions {
    /// The replica that it is of.
    pub replica: ReplicaId,
    /// Milliseconds since 1970-01-01 UTC.
    pub now: u64,
    /// Everything, even what earlier backups in the folder have.
    pub full: bool,
}

/// A namespace as it is to be backed up.
pub struct Source {
    /// Its name.
    pub namespace: Namespace,
    /// What is in it. Given up as soon as it is saved.
    pub view: Arc<View>,
}

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Name of its folder.
    pub backup: String,
    /// The folder.
    pub path: String,
    /// Bytes of all its data files.
    pub bytes: u64,
    /// In order of name.
    pub namespaces: Vec<SavedNamespace>,
}

/// What the backup of a namespace came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavedNamespace {
    /// Its name.
    pub namespace: Namespace,
    /// Its Merkle root.
    pub root: String,
    /// States that are not deleted.
    pub states: u64,
    /// The backup of which only the changes since were written.
    pub parent: Option<String>,
    /// Why everything was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_because: Option<String>,
    /// What was written.
    pub written: Written,
}

/// Makes a backup in a folder, which is made when it does not exist. When this fails, nothing of
/// it stays.
///
/// # Errors
/// [`BackupError`] when the folder cannot be used, the store cannot be read, or `watch` says to
/// stop.
pub fn save(
    folder: &Path,
    sources: Vec<Source>,
    options: SaveOptions,
    watch: &dyn Watch,
) -> Result<Saved, BackupError> {
    let destination = Destination::at(folder);
    let _lock = destination.lock()?;
    let mut earlier = Earlier::new(&destination)?;
    let draft = destination.draft()?;
    let mut manifest = Manifest {
        format: FORMAT,
        backup: draft.number(),
        time: rfc3339(options.now),
        replica: options.replica,
        samestate: env!("CARGO_PKG_VERSION").to_owned(),
        namespaces: Vec::with_capacity(sources.len()),
    };
    let name = folder_name(draft.number());
    let mut saved = Saved {
        path: folder.join(&name).display().to_string(),
        backup: name,
        bytes: 0,
        namespaces: Vec::with_capacity(sources.len()),
    };
    for source in sources {
        let base = earlier.base(&source.namespace, options.full);
        let part = save_namespace(&draft, &source, &base, watch)?;
        saved.bytes += part.written.bytes;
        saved.namespaces.push(SavedNamespace {
            namespace: source.namespace,
            root: part.root.to_hex(),
            states: part.states,
            parent: part.parent.map(folder_name),
            full_because: base.full_because,
            written: part.written,
        });
        manifest.namespaces.push(part);
    }
    let in_order = |part: &NamespacePart| part.namespace.clone();
    manifest.namespaces.sort_by_key(in_order);
    draft.publish(&manifest)?;
    Ok(saved)
}

/// The backups that are in the folder. Those that cannot be read are passed over.
struct Earlier<'a> {
    destination: &'a Destination,
    /// Not read yet, newest last.
    numbers: Vec<u32>,
    /// Newest first.
    manifests: Vec<Manifest>,
}

impl<'a> Earlier<'a> {
    fn new(destination: &'a Destination) -> Result<Self, BackupError> {
        Ok(Self {
            destination,
            numbers: destination.numbers()?,
            manifests: Vec::new(),
        })
    }

    /// What a new backup of a namespace builds on.
    fn base(&mut self, namespace: &Namespace, full: bool) -> Base {
        let from_scratch = |why: String| Base {
            parent: None,
            chain: Chain::default(),
            full_because: Some(why),
        };
        if full {
            return from_scratch("it was asked for".into());
        }
        let Some((backup, part)) = self.newest(namespace) else {
            return from_scratch("there is no earlier one".into());
        };
        if part.files.len() >= CHAIN_MAX {
            return from_scratch(format!("the one before consists of {CHAIN_MAX} files"));
        }
        match Chain::open(self.destination, &part) {
            Ok(chain) => Base {
                parent: Some((backup, part)),
                chain,
                full_because: None,
            },
            Err(error) => {
                warn!(%error, "an earlier backup cannot be built on");
                from_scratch(error.to_string())
            }
        }
    }

    fn newest(&mut self, namespace: &Namespace) -> Option<(u32, NamespacePart)> {
        let found = |manifest: &Manifest| {
            let part = manifest.part(namespace)?;
            Some((manifest.backup, part.clone()))
        };
        if let Some(known) = self.manifests.iter().find_map(found) {
            return Some(known);
        }
        while let Some(number) = self.numbers.pop() {
            match self.destination.manifest(number) {
                Ok(manifest) => {
                    let part = found(&manifest);
                    self.manifests.push(manifest);
                    if part.is_some() {
                        return part;
                    }
                }
                Err(error) => warn!(%error, "an earlier backup is passed over"),
            }
        }
        None
    }
}

/// What a backup of a namespace builds on.
struct Base {
    parent: Option<(u32, NamespacePart)>,
    chain: Chain,
    full_because: Option<String>,
}

fn save_namespace(
    draft: &Draft,
    source: &Source,
    base: &Base,
    watch: &dyn Watch,
) -> Result<NamespacePart, BackupError> {
    let view = &source.view;
    let (head, parent) = (view.head(), base.parent.as_ref().map(|(_, part)| part));
    let mut part = NamespacePart {
        namespace: source.namespace.clone(),
        cursor: view.cursor(),
        root: head.root.hash,
        records: head.root.leaves,
        states: head.live,
        size: head.root.size,
        updated_at: head.root.updated_at,
        parent: base.parent.as_ref().map(|(backup, _)| *backup),
        files: parent.map_or_else(Vec::new, |part| part.files.clone()),
        written: Written::default(),
    };
    let before = parent.map_or(Summary::EMPTY, NamespacePart::summary);
    if before.matches(&head.root) {
        return Ok(part);
    }
    let path = draft.data(&source.namespace);
    let mut saver = Saver {
        view,
        backup: draft.number(),
        writer: DataWriter::create(&path, draft.number())?,
        index: PieceIndex::new(base.chain.files(), draft.number()),
        written: Written::default(),
    };
    find(
        view,
        &base.chain,
        parent,
        watch,
        &mut |key, change| match change {
            Change::Written(row, known) => saver.put(&key, &row, known.as_ref()),
            Change::Removed(id) => {
                saver.written.removed += 1;
                saver.writer.put_entry(&key, &Entry::removed(id))
            }
        },
    )?;
    let Saver {
        mut writer,
        mut index,
        written,
        ..
    } = saver;
    index.flush(&mut writer)?;
    let file = writer.finish()?;
    part.written = Written {
        bytes: file.length,
        ..written
    };
    part.files.push(file);
    Ok(part)
}

/// Writes states into a data file.
struct Saver<'a> {
    view: &'a View,
    backup: u32,
    writer: DataWriter,
    index: PieceIndex,
    written: Written,
}

impl Saver<'_> {
    fn put(
        &mut self,
        key: &StateKey,
        row: &RecordRow,
        known: Option<&Entry>,
    ) -> Result<(), BackupError> {
        let record = &row.record;
        if record.leaf() != row.leaf {
            let what = format!("the row of {:?} is not that of its versions", record.id);
            return Err(StoreError::damaged(what).into());
        }
        let mut places = Places::new();
        let known = known.iter().flat_map(|entry| entry.oldest_first());
        for held in known.filter(|held| !held.is_given_up()) {
            places.insert(held.version.content, held.pieces.clone());
        }
        let mut entry = Entry::removed(record.id.clone());
        let mut length = 0;
        for (version, placement) in row.placed() {
            let held = self.held(&mut places, version, placement)?;
            length += encode(&held).len();
            entry.current.push(held);
        }
        for placed in self.view.snapshot().history(key)? {
            if !entry.supersedes(&placed.version) {
                continue;
            }
            match self.held(&mut places, &placed.version, &placed.placement) {
                Ok(held) => {
                    length += encode(&held).len();
                    entry.history.push(held);
                }
                // An old version must not stand in the way of everything that is intact.
                Err(BackupError::Store(StoreError::Damaged(what))) => {
                    warn!(id = %record.id, what, "an old version is left out of the backup");
                    self.written.unreadable += 1;
                }
                Err(error) => return Err(error),
            }
            if length > ENTRY_MAX {
                break;
            }
        }
        entry.history.reverse();
        self.written.states += 1;
        self.writer.put_entry(key, &entry)
    }

    /// A version with its bytes in the chain.
    fn held(
        &mut self,
        places: &mut Places,
        version: &Version,
        placement: &Placement,
    ) -> Result<Held, BackupError> {
        let pieces = match places.get(&version.content) {
            Some(known) => known.clone(),
            None => match self.view.snapshot().chunks_of(version, placement)? {
                Some(list) => self.hold_chunks(&version.content, &list)?,
                None => {
                    let bytes = self.view.snapshot().content(version, placement)?;
                    self.hold(bytes.as_deref().unwrap_or_default())?
                }
            },
        };
        if *placement == Placement::Nothing {
            return Ok(Held {
                version: version.clone(),
                pieces,
            });
        }
        places.insert(version.content, pieces.clone());
        Ok(Held {
            version: version.clone(),
            pieces,
        })
    }

    /// Makes sure that bytes are in the chain, and tells where.
    fn hold(&mut self, bytes: &[u8]) -> Result<Vec<Run>, BackupError> {
        let mut runs = Vec::new();
        if bytes.len() <= CHUNK_MAX {
            if !bytes.is_empty() {
                self.hold_piece(bytes, &mut runs)?;
            }
            return Ok(runs);
        }
        for range in chunks(bytes) {
            self.hold_piece(&bytes[range], &mut runs)?;
        }
        Ok(runs)
    }

    /// As [`Self::hold`], of bytes that are stored in chunks, one at a time.
    fn hold_chunks(
        &mut self,
        content: &ContentHash,
        list: &[ChunkEntry],
    ) -> Result<Vec<Run>, BackupError> {
        let (mut runs, mut hasher) = (Vec::new(), ContentHasher::default());
        for chunk in list {
            let bytes = self.view.snapshot().chunk_of(content, chunk)?;
            hasher.update(&bytes);
            self.hold_piece(&bytes, &mut runs)?;
        }
        if hasher.finish().matches(content) {
            return Ok(runs);
        }
        let what = format!("content {content} does not have its hash any more");
        Err(StoreError::damaged(what).into())
    }

    fn hold_piece(&mut self, piece: &[u8], runs: &mut Vec<Run>) -> Result<(), BackupError> {
        let hash = (piece.len() >= INDEXED_MIN).then(|| ChunkHash::of(piece));
        let known = match &hash {
            Some(hash) => self.index.find(hash)?,
            None => None,
        };
        if let Some((backup, number)) = known {
            extend(runs, backup, number);
            return Ok(());
        }
        let number = self.writer.put_piece(piece)?;
        self.written.pieces += 1;
        if let Some(hash) = hash {
            self.index.note(&mut self.writer, hash, number)?;
        }
        extend(runs, self.backup, number);
        Ok(())
    }
}
