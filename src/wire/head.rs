//! How the structured part of a message is written in a frame of version 4. In version 3 all of them are
//! encoded values; most still are, and those that every small transfer sends are shorter.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::binary::encode_bare_into;
use crate::wire::chunk_messages::{ChunksReply, ChunksRequest, StageReply, StageRequest};
use crate::wire::error::BadFrame;
use crate::wire::fields::Fields;
use crate::wire::healing_messages::{ContentsRequest, PiecesRequest};
use crate::wire::messages::{
    CloseReply, CloseRequest, CompareRequest, DictionaryReply, DictionaryRequest, ForgetReply,
    ForgetRequest, OfferRequest, OpenReply, OpenRequest, ProbeReply, ProbeRequest, RangeReply,
    RangeRequest, RecordsReply, RecordsRequest, StoreReply, SubtreesReply, SubtreesRequest,
};

/// The structured part of a message.
pub trait Head: Serialize + DeserializeOwned {
    /// Writes it for a frame of version 4.
    fn write(&self, bytes: &mut Vec<u8>) {
        encode_bare_into(bytes, self);
    }

    /// Reads what [`Self::write`] has written, and leaves the blob.
    ///
    /// # Errors
    /// [`BadFrame`] when the message does not begin with one.
    fn read(fields: &mut Fields<'_>) -> Result<Self, BadFrame> {
        fields.value()
    }
}

macro_rules! encoded {
    ($($head:ty),* $(,)?) => {
        $(impl Head for $head {})*
    };
}

encoded!(
    (),
    OpenRequest,
    OpenReply,
    CompareRequest,
    RecordsRequest,
    RecordsReply,
    SubtreesRequest,
    SubtreesReply,
    RangeRequest,
    RangeReply,
    OfferRequest,
    StoreReply,
    CloseRequest,
    CloseReply,
    ContentsRequest,
    ForgetRequest,
    ForgetReply,
    ProbeRequest,
    ProbeReply,
    DictionaryRequest,
    DictionaryReply,
    ChunksRequest,
    ChunksReply,
    StageRequest,
    StageReply,
    PiecesRequest,
);
