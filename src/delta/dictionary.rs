//! Dictionaries trained from the states of a namespace: what they have in common need not travel with
//! each of them. A dictionary is one of zstd (RFC 8878, section 5), known by the SHA-256 of its bytes.

use zstd::zstd_safe::{
    self, CCtx, CDict, CParameter, DCtx, DDict, DParameter, FrameFormat, train_from_buffer,
};

use crate::delta::compress::compress;
use crate::delta::error::{DeltaError, check_length};
use crate::types::hash::ContentHash;

/// Largest dictionary that is trained, or taken from anybody, in bytes.
pub const DICTIONARY_MAX: usize = 32 << 10;
/// Bytes of states that dictionaries are trained from, at most: about half a second of work.
pub const SAMPLE_MAX: usize = 1 << 20;
/// Bytes of states that one frame may hold. What is more has enough in common with itself.
pub const TOGETHER_MAX: usize = 32 << 10;
/// Fewer samples, or bytes of them, say nothing about states to come.
const SAMPLES_MIN: usize = 32;
const SAMPLE_MIN: usize = 4 << 10;
/// How many bytes of samples a byte of a dictionary is made from, at least.
const SAMPLES_A_BYTE: usize = 4;
/// Every which sample is not trained from, but tried with what was trained from the others.
const HELD_OUT: usize = 4;
/// What is compressed is short, so that the best that zstd can do takes no longer than a
/// few milliseconds at most.
const LEVEL: i32 = 19;
/// The level of what a dictionary is compared with.
const PLAIN_LEVEL: i32 = 3;
/// First bytes of a dictionary with its tables (RFC 8878, section 5).
const MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// A dictionary ready for use.
pub struct Dictionary {
    hash: ContentHash,
    bytes: Vec<u8>,
    encoder: CDict<'static>,
    decoder: DDict<'static>,
}

impl Dictionary {
    /// Prepares a dictionary that may come from anybody.
    ///
    /// # Errors
    /// [`DeltaError`] when it is longer than [`DICTIONARY_MAX`], or zstd does not take it for a
    /// dictionary.
    pub fn new(bytes: Vec<u8>) -> Result<Self, DeltaError> {
        if bytes.len() > DICTIONARY_MAX {
            let limit = DICTIONARY_MAX;
            return Err(DeltaError::TooLarge { limit });
        }
        let named = zstd_safe::get_dict_id(&bytes).filter(|_| bytes.starts_with(&MAGIC));
        let encoder = named.and_then(|_| CDict::try_create(&bytes, LEVEL));
        let (Some(encoder), Some(decoder)) = (encoder, DDict::try_create(&bytes)) else {
            return Err(DeltaError::Malformed("no dictionary of zstd"));
        };
        Ok(Self {
            hash: ContentHash::of(&bytes),
            bytes,
            encoder,
            decoder,
        })
    }

    /// Trains a dictionary from states like those that it is to be used for. The same states give
    /// the same dictionary. `None` when they are too few, or nothing comes of them.
    pub fn train(samples: &[&[u8]]) -> Option<Self> {
        let sizes: Vec<usize> = samples.iter().map(|sample| sample.len()).collect();
        let total: usize = sizes.iter().sum();
        if samples.len() < SAMPLES_MIN || !(SAMPLE_MIN..=SAMPLE_MAX).contains(&total) {
            return None;
        }
        let mut bytes = Vec::with_capacity((total / SAMPLES_A_BYTE).min(DICTIONARY_MAX));
        train_from_buffer(&mut bytes, &samples.concat(), &sizes).ok()?;
        Self::new(bytes).ok()
    }

    /// The hash that it is known by.
    pub fn hash(&self) -> &ContentHash {
        &self.hash
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Compresses into a frame without magic number, length and dictionary id: whoever decodes it
    /// knows them.
    ///
    /// # Errors
    /// [`DeltaError::Zstd`] when zstd cannot get the memory.
    pub fn compress(&self, content: &[u8]) -> Result<Vec<u8>, DeltaError> {
        let mut context = CCtx::create();
        for parameter in [
            CParameter::Format(FrameFormat::Magicless),
            CParameter::ContentSizeFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            context.set_parameter(parameter).map_err(failed)?;
        }
        context.ref_cdict(&self.encoder).map_err(failed)?;
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
        context.compress2(&mut frame, content).map_err(failed)?;
        Ok(frame)
    }

    /// Undoes [`Self::compress`] for content of exactly `exact_len` bytes, and takes no more memory than
    /// that for it.
    ///
    /// # Errors
    /// [`DeltaError`] when the frame is damaged, was made with another dictionary, or has another
    /// length.
    pub fn decompress(&self, frame: &[u8], exact_len: usize) -> Result<Vec<u8>, DeltaError> {
        if frame.is_empty() {
            return Err(DeltaError::Malformed("no frame"));
        }
        let mut context = DCtx::create();
        let format = DParameter::Format(FrameFormat::Magicless);
        context.set_parameter(format).map_err(failed)?;
        context.ref_ddict(&self.decoder).map_err(failed)?;
        let mut content = Vec::with_capacity(exact_len);
        context.decompress(&mut content, frame).map_err(failed)?;
        check_length(content, exact_len)
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (hash, bytes) = (self.hash.to_hex(), self.bytes.len());
        write!(f, "Dictionary({hash}, {bytes} bytes)")
    }
}

/// How well a dictionary does with states that it was not trained from, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Worth {
    /// Bytes of the states, compressed with it.
    pub with: usize,
    /// The same without.
    pub without: usize,
}

impl Worth {
    /// Of a dictionary for some states.
    pub fn of(dictionary: &Dictionary, states: &[&[u8]]) -> Self {
        let mut worth = Self::default();
        for state in states {
            let plain = compress(state, PLAIN_LEVEL).map_or(state.len(), |frame| frame.len());
            let shared = dictionary.compress(state);
            worth.without += plain.min(state.len());
            worth.with += shared
                .map_or(state.len(), |frame| frame.len())
                .min(state.len());
        }
        worth
    }

    /// True when it saves three bytes of ten.
    pub fn pays(self) -> bool {
        self.with * 10 <= self.without * 7
    }

    /// True when it saves one byte in eight over another one, which has to be given up for it.
    pub fn beats(self, other: Self) -> bool {
        self.with * 8 <= other.with * 7
    }
}

/// Trains a dictionary from states of now. `None` when it would not pay, or not save enough over the
/// `present` one, which has to be given up for it.
pub fn retrain(states: &[&[u8]], present: Option<&Dictionary>) -> Option<Dictionary> {
    let (train, held_out) = split(states);
    let trained = Dictionary::train(&train)?;
    let worth = Worth::of(&trained, &held_out);
    let beaten = present.map(|present| Worth::of(present, &held_out));
    (worth.pays() && beaten.is_none_or(|beaten| worth.beats(beaten))).then_some(trained)
}

/// Parts samples in those that are trained from and those that are held out.
fn split<'s>(samples: &[&'s [u8]]) -> (Vec<&'s [u8]>, Vec<&'s [u8]>) {
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (place, sample) in samples.iter().enumerate() {
        if place % HELD_OUT == HELD_OUT - 1 {
            held_out.push(*sample);
        } else {
            train.push(*sample);
        }
    }
    (train, held_out)
}

fn failed(code: usize) -> DeltaError {
    DeltaError::Zstd(zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::archive;
    use crate::delta::sample::noise;

    /// Small states of a recorded game, the first version of each.
    fn records() -> Vec<Vec<u8>> {
        let index = include_str!("../../tests/fixtures/game-states.tsv");
        let pack = include_bytes!("../../tests/fixtures/game-states.pack");
        let entries = archive::read(index, pack).unwrap();
        let mut seen = std::collections::HashSet::new();
        let first = entries.into_iter().filter(|entry| {
            let key = entry.name.split('@').next().unwrap_or_default().to_owned();
            entry.series == "records" && entry.bytes.len() <= 4096 && seen.insert(key)
        });
        first.map(|entry| entry.bytes).collect()
    }

    fn slices(records: &[Vec<u8>]) -> Vec<&[u8]> {
        records.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn records_of_a_game_take_less_than_half_with_a_dictionary_of_others() {
        let records = records();
        let (train, held_out) = split(&slices(&records));
        assert!(train.len() >= SAMPLES_MIN, "{}", train.len());
        let dictionary = Dictionary::train(&train).unwrap();
        assert_eq!(dictionary.hash(), Dictionary::train(&train).unwrap().hash());
        let worth = Worth::of(&dictionary, &held_out);
        assert!(worth.pays() && worth.with * 2 < worth.without, "{worth:?}");
        for state in held_out {
            let frame = dictionary.compress(state).unwrap();
            let back = dictionary.decompress(&frame, state.len()).unwrap();
            assert_eq!(back, state);
        }
    }

    #[test]
    fn what_has_nothing_in_common_trains_nothing_that_pays() {
        let states: Vec<Vec<u8>> = (1..200).map(|seed| noise(200, seed * 7919)).collect();
        let (train, held_out) = split(&slices(&states));
        let trained = Dictionary::train(&train);
        assert!(!trained.is_some_and(|trained| Worth::of(&trained, &held_out).pays()));
        assert!(Dictionary::train(&slices(&states)[..SAMPLES_MIN - 1]).is_none());
        assert!(Dictionary::train(&[&[7; SAMPLE_MAX][..]; 40]).is_none());
    }

    #[test]
    fn what_the_command_line_tool_made_is_read() {
        // `zstd --train --maxdict=2048`, and behind its magic number what `zstd -19 --no-check --no-dictID -D`
        // made of three states.
        let dictionary = include_bytes!("../../tests/fixtures/dictionary.zdict");
        let payload = include_bytes!("../../tests/fixtures/together.payload");
        let dictionary = Dictionary::new(dictionary.to_vec()).unwrap();
        let name = "ab92f68fdf8c182ec4328246150f114daf971a2ebf4472543deea176f9d1b17c";
        assert_eq!(dictionary.hash().to_hex(), name);
        let content = dictionary.decompress(payload, 804).unwrap();
        assert_eq!(
            ContentHash::of(&content).to_hex(),
            "849848886d30b9ab68b590b8fa80963c40426a16ebab4161ad9f4850dcc77775"
        );
        assert!(dictionary.compress(&content).unwrap().len() <= payload.len());
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        let good = Dictionary::train(&slices(&records())).unwrap().bytes;
        let limit = DICTIONARY_MAX;
        let long = [&good[..], &vec![0; DICTIONARY_MAX]].concat();
        let too_large = DeltaError::TooLarge { limit };
        assert_eq!(Dictionary::new(long).unwrap_err(), too_large);
        for bad in [&b""[..], b"raw content", &good[1..], &good[..40], &MAGIC] {
            assert!(Dictionary::new(bad.to_vec()).is_err(), "{bad:?}");
        }
        // Whatever is changed in its tables, it is refused, or used without harm.
        for place in 0..200 {
            let mut changed = good.clone();
            changed[place] ^= 0x5a;
            if let Ok(dictionary) = Dictionary::new(changed) {
                let frame = dictionary.compress(b"unit 7: 12, 40").unwrap();
                assert_eq!(
                    dictionary.decompress(&frame, 14).unwrap(),
                    b"unit 7: 12, 40"
                );
            }
        }
    }

    #[test]
    fn frames_give_the_announced_length_or_an_error() {
        let records = records();
        let dictionary = Dictionary::train(&slices(&records)).unwrap();
        let state = &records[0];
        let frame = dictionary.compress(state).unwrap();
        assert!(dictionary.decompress(&frame, state.len() - 1).is_err());
        assert!(dictionary.decompress(&frame, state.len() + 1).is_err());
        assert!(dictionary.decompress(b"", 0).is_err());
        for place in 0..frame.len() {
            assert!(dictionary.decompress(&frame[..place], state.len()).is_err());
            for flip in 1..=255 {
                let mut changed = frame.clone();
                changed[place] ^= flip;
                if let Ok(decoded) = dictionary.decompress(&changed, state.len()) {
                    assert_eq!(decoded.len(), state.len());
                }
            }
        }
        let bomb = dictionary.compress(&vec![7; 64 << 20]).unwrap();
        assert!(dictionary.decompress(&bomb, 1 << 10).is_err());
    }
}
