//! What is read from files: segments of the log, rows of the engine, backups, settings, and the names
//! that people write.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use samestate::backup::block::{BLOCK_HEADER, Header};
use samestate::backup::manifest::Manifest;
use samestate::config::file;
use samestate::store::log::group::{ReadGroup, SegmentKey, lengths, open, seal};
use samestate::store::log::segment::{
    Header as SegmentHeader, is_cut_off, is_unfinished, read_header,
};
use samestate::store::rows::{
    ContentRow, RecordRow, head_from_bytes, history_from_bytes, history_to_bytes, leaf_of_row,
};
use samestate::types::binary::{decode, encode};
use samestate::types::cursor::{Cursor, Epoch};
use samestate::types::hash::{ContentHash, NodeHash, StateKey};
use samestate::types::id::{GameId, Namespace, ReplicaId};
use samestate::types::lineage::{Lineage, Sighting};
use samestate::types::record::StateRecord;
use samestate::types::seen::Seen;
use samestate::types::ttl::Ttl;
use tempfile::TempDir;

/// The segment of all seeds.
pub const SEGMENT: SegmentKey = SegmentKey {
    epoch: Epoch(5),
    number: 3,
};

/// A segment's header, or a group of entries.
pub fn log_segments(input: &[u8]) {
    let header = read_header(input);
    if let SegmentHeader::Key(key) = header {
        assert!(is_unfinished(input, key));
    }
    let _ = is_cut_off(input);
    let _ = lengths(input);
    if let ReadGroup::Intact(entries, used) = open(SEGMENT, &Bytes::copy_from_slice(input)) {
        let again = Bytes::from(seal(SEGMENT, &entries));
        assert_eq!(open(SEGMENT, &again), ReadGroup::Intact(entries, used));
    }
}

/// Rows of the engine's tables, and encoded values.
pub fn rows(input: &[u8]) {
    let key = StateKey([7; 32]);
    let _ = leaf_of_row(key, input);
    if let Ok(row) = RecordRow::from_bytes(key, input) {
        let _ = row.is_live();
        let _ = row.due();
        if let Ok(row) = row.checked() {
            assert!(RecordRow::from_bytes(key, &row.to_bytes()).is_ok());
        }
    }
    if let Ok(entries) = history_from_bytes(input) {
        assert!(history_from_bytes(&history_to_bytes(&entries)).is_ok());
    }
    let _ = ContentRow::from_bytes(input);
    let _ = head_from_bytes(Some(input));
    if let Ok(record) = decode::<StateRecord>(input)
        && record.check().is_ok()
    {
        let _ = (record.key(), record.leaf());
        assert!(decode::<StateRecord>(&encode(&record)).is_ok());
    }
    if let Ok(lineage) = decode::<Lineage>(input) {
        let _ = lineage.check();
    }
    let _ = decode::<Sighting>(input);
    let _ = decode::<Seen>(input);
}

/// A block of a data file, or a manifest.
pub fn backups(input: &[u8]) {
    if let Some((header, packed)) = input.split_first_chunk::<BLOCK_HEADER>()
        && let Ok(header) = Header::read(header)
    {
        let _ = header.fits(0, packed);
        let _ = header.unpack(packed);
    }
    // The sums beside it are right, so that what stands in it is looked at.
    let sums = serde_json::from_slice::<Manifest>(input).map(|manifest| manifest.sums(input));
    if let Ok(sums) = sums
        && let Ok(manifest) = Manifest::read(Path::new("manifest"), input, &sums, 1)
    {
        for part in &manifest.namespaces {
            let _ = (part.summary(), part.own_file(1));
        }
    }
}

/// A settings file.
pub fn configs(input: &[u8]) {
    static FOLDER: OnceLock<Option<TempDir>> = OnceLock::new();
    let Some(folder) = FOLDER.get_or_init(|| tempfile::tempdir().ok()) else {
        return;
    };
    let path = folder.path().join("samestate.toml");
    if fs::write(&path, input).is_ok() {
        let _ = file::read(&path);
    }
}

/// Ids, namespaces and hashes that people write.
pub fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(id) = GameId::new(text) {
        assert_eq!(id.as_str(), text);
        assert!(text.starts_with(id.folder()));
    }
    if let Ok(namespace) = Namespace::new(text) {
        assert_eq!(namespace.as_str(), text);
    }
    if let Ok(hash) = text.parse::<ContentHash>() {
        assert_eq!(hash.to_string().to_lowercase(), text.to_lowercase());
    }
    let _ = text.parse::<NodeHash>();
    let _ = text.parse::<Cursor>();
    let _ = text.parse::<ReplicaId>();
    let _ = text.parse::<Ttl>();
}
