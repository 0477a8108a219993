//! What a disk holds: what programs see of it, what is durable, and what is in between.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::simulated_disk::content::Content;

/// A file whatever its name is, and when it has none any more.
pub type FileId = usize;

/// A step that changed the disk.
#[derive(Debug, Clone)]
pub enum Operation {
    Content(FileId, Change),
    Sync(FileId),
    /// A sync that reported an error.
    FailedSync(FileId),
    Name(NameChange),
    SyncFolder(PathBuf),
}

/// A step that changed a file's bytes.
#[derive(Debug, Clone)]
pub enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLength(u64),
}

/// A step that changed the names in a folder. No step touches two folders.
#[derive(Debug, Clone)]
pub enum NameChange {
    Create(PathBuf, FileId),
    Rename { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
}

pub type Names = BTreeMap<PathBuf, FileId>;

/// A file's bytes as programs see them, and what is known of them on the medium.
#[derive(Debug, Clone, Default)]
pub struct StoredFile {
    pub live: Arc<Content>,
    /// What no power cut takes away, as far as it lies before `pending`.
    pub synced: Arc<Content>,
    /// What happened since `synced`, in order.
    pub pending: Vec<Pending>,
    /// How many of `pending` a later sync covered. Those are durable unless they are doubtful.
    pub settled: usize,
}

#[derive(Debug, Clone)]
pub struct Pending {
    pub change: Change,
    /// The file's length after it.
    pub length: u64,
    /// A sync failed after it. No later sync tells whether it is on the medium: the kernel has
    /// reported the error once and takes the pages for clean since. Lengths go another way, by the
    /// file system's journal, and are durable after the next sync.
    pub doubtful: bool,
}

/// All files of a disk. Copies share what they have in common.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    pub names: Arc<Names>,
    pub synced_names: Arc<Names>,
    /// Changes to names since their folder was synced, in order.
    pub pending_names: Vec<NameChange>,
    files: Vec<Arc<StoredFile>>,
}

impl Volume {
    /// A disk whose every bit is durable.
    pub fn durable(files: impl IntoIterator<Item = (PathBuf, Arc<Content>)>) -> Self {
        let mut volume = Self::default();
        let mut names = Names::new();
        for (path, content) in files {
            names.insert(path, volume.files.len());
            volume.files.push(Arc::new(StoredFile {
                live: Arc::clone(&content),
                synced: content,
                ..StoredFile::default()
            }));
        }
        volume.names = Arc::new(names);
        volume.synced_names = Arc::clone(&volume.names);
        volume
    }

    /// The id of the next file to be created.
    pub fn next_file(&self) -> FileId {
        self.files.len()
    }

    pub fn file(&self, file: FileId) -> &StoredFile {
        &self.files[file]
    }

    /// Bytes of space that the named files take.
    pub fn allocated(&self) -> u64 {
        let named = self.names.values();
        named.map(|file| self.files[*file].live.allocated()).sum()
    }

    /// Carries out a step that is known to be possible.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Content(file, change) => self.file_mut(*file).change(change),
            Operation::Sync(file) => self.file_mut(*file).sync(),
            Operation::FailedSync(file) => self.file_mut(*file).fail_sync(),
            Operation::Name(change) => {
                if let NameChange::Create(_, file) = change {
                    assert_eq!(*file, self.files.len(), "files are numbered in order");
                    self.files.push(Arc::default());
                }
                change.apply(Arc::make_mut(&mut self.names));
                self.pending_names.push(change.clone());
            }
            Operation::SyncFolder(folder) => {
                let waiting = std::mem::take(&mut self.pending_names);
                let (synced, others) = waiting
                    .into_iter()
                    .partition(|change| change.folder() == folder);
                self.pending_names = others;
                let names = Arc::make_mut(&mut self.synced_names);
                let synced: Vec<NameChange> = synced;
                synced.iter().for_each(|change| change.apply(names));
            }
        }
    }

    fn file_mut(&mut self, file: FileId) -> &mut StoredFile {
        Arc::make_mut(&mut self.files[file])
    }
}

impl StoredFile {
    fn change(&mut self, change: &Change) {
        let live = Arc::make_mut(&mut self.live);
        change.apply(live);
        self.pending.push(Pending {
            change: change.clone(),
            length: live.length(),
            doubtful: false,
        });
    }

    fn sync(&mut self) {
        if self.pending.iter().any(|pending| pending.doubtful) {
            self.settled = self.pending.len();
        } else {
            self.synced = Arc::clone(&self.live);
            self.pending.clear();
        }
    }

    fn fail_sync(&mut self) {
        for pending in &mut self.pending[self.settled..] {
            pending.doubtful = true;
        }
    }
}

impl Change {
    pub fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, bytes } => content.write(*offset, bytes),
            Self::SetLength(length) => content.set_length(*length),
        }
    }
}

impl NameChange {
    /// The folder that has to be synced to make the change durable.
    pub fn folder(&self) -> &Path {
        let (Self::Create(path, _) | Self::Rename { to: path, .. } | Self::Remove(path)) = self;
        folder_of(path)
    }

    pub fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(file, Change::Write { offset, bytes }) => {
                write!(f, "file {file}: write {} bytes at {offset}", bytes.len())
            }
            Self::Content(file, Change::SetLength(length)) => {
                write!(f, "file {file}: set length {length}")
            }
            Self::Sync(file) => write!(f, "file {file}: sync"),
            Self::FailedSync(file) => write!(f, "file {file}: failed sync"),
            Self::Name(NameChange::Create(path, file)) => {
                write!(f, "create {} as file {file}", path.display())
            }
            Self::Name(NameChange::Rename { from, to }) => {
                write!(f, "rename {} to {}", from.display(), to.display())
            }
            Self::Name(NameChange::Remove(path)) => write!(f, "remove {}", path.display()),
            Self::SyncFolder(folder) => write!(f, "sync folder {}", folder.display()),
        }
    }
}
