//! Checking a backup: every file, the root that its states give, and the bytes of every version.

use serde::Serialize;

use crate::backup::chain::Chain;
use crate::backup::data::verify;
use crate::backup::destination::{Destination, folder_name};
use crate::backup::error::BackupError;
use crate::backup::manifest::{Manifest, NamespacePart};
use crate::backup::watch::{Watch, step};
use crate::merkle::node::Summary;
use crate::merkle::stream::RootStream;
use crate::types::record::StateRecord;

/// What a backup that is whole holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Name of its folder.
    pub backup: String,
    /// When it was begun, RFC 3339.
    pub time: String,
    /// The replica that it is of.
    pub replica: String,
    /// In order of name.
    pub namespaces: Vec<CheckedNamespace>,
}

/// What the backup of one namespace holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedNamespace {
    /// Its name.
    pub namespace: String,
    /// Its Merkle root.
    pub root: String,
    /// States that are not deleted.
    pub states: u64,
    /// Versions, superseded ones included.
    pub versions: u64,
    /// Bytes of those versions.
    pub bytes: u64,
}

/// Does everything that a restore does, except writing.
///
/// # Errors
/// [`BackupError`] naming the first thing that is wrong.
pub fn check(
    destination: &Destination,
    number: Option<u32>,
    watch: &dyn Watch,
) -> Result<Checked, BackupError> {
    let manifest = destination.pick(number)?;
    check_roots(destination, &manifest, watch)?;
    let parts = manifest.namespaces.iter();
    let namespaces = parts.map(|part| check_contents(destination, part, watch));
    let namespaces = namespaces.collect::<Result<_, _>>()?;
    Ok(Checked {
        backup: folder_name(manifest.backup),
        time: manifest.time,
        replica: manifest.replica.to_string(),
        namespaces,
    })
}

/// Reads every file of a backup, and makes sure that the states give the roots in the manifest.
///
/// # Errors
/// [`BackupError`] naming the first thing that is wrong.
pub fn check_roots(
    destination: &Destination,
    manifest: &Manifest,
    watch: &dyn Watch,
) -> Result<(), BackupError> {
    let files = || {
        let parts = manifest.namespaces.iter();
        parts.flat_map(|part| part.files.iter().map(move |file| (part, file)))
    };
    let bytes = files().map(|(_, file)| file.length);
    let bytes = bytes.fold(0, u64::saturating_add);
    watch.begin("checking files", bytes, "bytes");
    for (part, file) in files() {
        verify(&destination.data(file.backup, &part.namespace), file, watch)?;
    }
    for part in &manifest.namespaces {
        let chain = Chain::open(destination, part)?;
        check_root(manifest.backup, part, &chain, watch)?;
    }
    Ok(())
}

fn check_root(
    number: u32,
    part: &NamespacePart,
    chain: &Chain,
    watch: &dyn Watch,
) -> Result<(), BackupError> {
    watch.begin("checking roots", part.records, "states");
    let (mut states, mut root) = (chain.states()?, RootStream::default());
    let mut live = Living::default();
    while let Some(state) = states.next_state()? {
        step(watch)?;
        live.count(&state.record);
        // They come in order of key, or not at all.
        if root.push(state.record.leaf()).is_err() {
            break;
        }
    }
    expect_root(number, part, root.finish(), live)
}

/// How many states of a backup are not deleted. Those that had expired and given up their bytes are not
/// counted in the manifest, and cannot always be told from others later.
#[derive(Debug, Clone, Copy, Default)]
pub struct Living {
    least: u64,
    most: u64,
}

impl Living {
    /// Counts one more state.
    pub fn count(&mut self, record: &StateRecord) {
        let is_there = !record.is_deleted();
        let may_have_expired = record.shown().expires_at.is_some();
        self.least += u64::from(is_there && !may_have_expired);
        self.most += u64::from(is_there);
    }
}

/// Compares root and counts with those in the manifest.
///
/// # Errors
/// [`BackupError::WrongRoot`].
pub fn expect_root(
    number: u32,
    part: &NamespacePart,
    root: Summary,
    live: Living,
) -> Result<(), BackupError> {
    if root.matches(&part.summary()) && (live.least..=live.most).contains(&part.states) {
        return Ok(());
    }
    let in_words = |root: &Summary, live: u64| {
        let Summary { hash, leaves, .. } = root;
        format!("{hash} over {leaves} records, {live} of them not deleted")
    };
    Err(BackupError::WrongRoot {
        namespace: part.namespace.clone(),
        number,
        actual: in_words(&root, live.most),
        expected: in_words(&part.summary(), part.states),
    })
}

fn check_contents(
    destination: &Destination,
    part: &NamespacePart,
    watch: &dyn Watch,
) -> Result<CheckedNamespace, BackupError> {
    watch.begin("checking states", part.records, "states");
    let chain = Chain::open(destination, part)?;
    let (mut states, mut contents) = (chain.states()?, chain.contents());
    let mut checked = CheckedNamespace {
        namespace: part.namespace.to_string(),
        root: part.root.to_hex(),
        states: part.states,
        versions: 0,
        bytes: 0,
    };
    while let Some(state) = states.next_state()? {
        step(watch)?;
        for held in state.entry.oldest_first() {
            checked.versions += 1;
            contents.visit(&state.entry.id, held, &mut |piece| {
                checked.bytes += piece.len() as u64;
                Ok(())
            })?;
        }
    }
    Ok(checked)
}
