//! Signed heads of logs of roots (Ed25519, RFC 8032), and what two of them show together.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::roots::entry::RootEntry;
use crate::roots::verify::is_consistent;
use crate::types::hash::{LogHash, hex};
use crate::types::id::{Namespace, ReplicaId};

/// What signed bytes begin with: nothing else is signed by the key.
const CONTEXT: &[u8] = b"samestate root log head 1\0";

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A replica's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A replica's secret key. Shows nothing of itself.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key of 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// What others verify with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a head. The same head always gets the same signature.
    pub fn sign(&self, namespace: &Namespace, head: LogHead) -> SignedHead {
        let signature = self.0.sign(&head.signed_bytes(namespace)).to_bytes();
        SignedHead {
            head,
            key: self.public(),
            signature: signature.to_vec(),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {:?}", self.public())
    }
}

/// The head of a log: everything in it follows from the log's first `size` entries, so that a
/// replica that is honest has exactly one for each size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// Whose log it is.
    pub replica: ReplicaId,
    /// The log's name, see [`crate::roots::entry::log_name`].
    pub log: LogHash,
    /// Entries so far, at least one.
    pub size: u64,
    /// The hash over them.
    pub hash: LogHash,
    /// The newest of them.
    pub newest: RootEntry,
}

impl LogHead {
    /// What the signature is of.
    pub fn signed_bytes(&self, namespace: &Namespace) -> Vec<u8> {
        let name = namespace.as_str().as_bytes();
        let mut bytes = CONTEXT.to_vec();
        // A name has at most 63 bytes.
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&self.replica.0.to_le_bytes());
        bytes.extend_from_slice(&self.log.0);
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.hash.0);
        bytes.extend_from_slice(&self.newest.to_bytes());
        bytes
    }
}

/// A head with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// What was signed.
    pub head: LogHead,
    /// By which key.
    pub key: PublicKey,
    /// [`SIGNATURE_BYTES`] bytes.
    pub signature: Vec<u8>,
}

impl SignedHead {
    /// True when the key has signed this head of a log of this namespace. Signatures that other
    /// implementations might judge differently are refused.
    pub fn is_signed(&self, namespace: &Namespace) -> bool {
        let Ok(signature) = Signature::from_slice(&self.signature) else {
            return false;
        };
        let Ok(key) = VerifyingKey::from_bytes(&self.key.0) else {
            return false;
        };
        let bytes = self.head.signed_bytes(namespace);
        self.head.size > 0 && key.verify_strict(&bytes, &signature).is_ok()
    }

    /// True for heads of one log, signed by one key.
    pub fn is_of_log_of(&self, other: &Self) -> bool {
        (self.key, self.head.log) == (other.key, other.head.log)
    }

    /// True when the two, both signed, cannot both be of one log that only grows: they are of one
    /// size and differ, or the larger is older.
    pub fn contradicts(&self, other: &Self) -> bool {
        if !self.is_of_log_of(other) {
            return false;
        }
        let (one, other) = (&self.head, &other.head);
        match one.size.cmp(&other.size) {
            std::cmp::Ordering::Equal => one != other,
            std::cmp::Ordering::Less => one.newest.time > other.newest.time,
            std::cmp::Ordering::Greater => one.newest.time < other.newest.time,
        }
    }

    /// True when `proof` shows that this head's log is the beginning of that of `later`.
    pub fn leads_to(&self, later: &Self, proof: &[LogHash]) -> bool {
        let (old, new) = (&self.head, &later.head);
        self.is_of_log_of(later)
            && !self.contradicts(later)
            && is_consistent((old.size, &old.hash), (new.size, &new.hash), proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::entry::log_name;
    use crate::types::cursor::Epoch;
    use crate::types::hash::NodeHash;

    fn head(size: u64, time: u64) -> LogHead {
        let newest = RootEntry {
            root: NodeHash([3; 32]),
            seq: 7,
            epoch: Epoch(5),
            incarnation: 2,
            time,
        };
        LogHead {
            replica: ReplicaId(0x0123_4567_89ab_cdef),
            log: log_name(Epoch(5), &newest.leaf()),
            size,
            hash: newest.leaf(),
            newest,
        }
    }

    #[test]
    fn a_head_that_was_changed_anywhere_is_not_signed() {
        let namespace = Namespace::default_namespace();
        let signed = SecretKey::from_seed(&[9; 32]).sign(&namespace, head(1, 1000));
        assert!(signed.is_signed(&namespace));
        assert!(!signed.is_signed(&Namespace::new("other").unwrap()));
        let bytes = crate::types::binary::encode(&signed);
        let mut read = 0;
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let Ok(changed) = crate::types::binary::decode::<SignedHead>(&changed) else {
                continue;
            };
            read += 1;
            assert!(!changed.is_signed(&namespace), "bit {bit}");
        }
        assert!(read > 1000, "{read}");
    }

    #[test]
    fn heads_contradict_each_other_only_within_one_log() {
        let (key, namespace) = (
            SecretKey::from_seed(&[9; 32]),
            Namespace::default_namespace(),
        );
        let sign = |head| key.sign(&namespace, head);
        let first = sign(head(1, 1000));
        assert_eq!(first, sign(head(1, 1000)), "signing again gives the same");
        assert!(!first.contradicts(&first));
        let mut other = head(1, 1000);
        other.newest.seq += 1;
        assert!(first.contradicts(&sign(other)), "two heads of one size");
        let of_other_key = SecretKey::from_seed(&[8; 32]).sign(&namespace, other);
        assert!(!first.contradicts(&of_other_key));
        other.log = LogHash([1; 32]);
        assert!(!first.contradicts(&sign(other)), "another log");
        let mut later = head(2, 999);
        later.log = first.head.log;
        assert!(first.contradicts(&sign(later)) && sign(later).contradicts(&first));
        later.newest.time = 1000;
        assert!(!first.contradicts(&sign(later)));
        assert!(!first.leads_to(&sign(later), &[]));
        assert!(first.leads_to(&first, &[]));
    }
}
