//! `PATCH /v1/ns/{ns}/states/{id}`: a state as a delta against its current content (RFC 9842).

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;

use crate::delta::dcz;
use crate::delta::error::DeltaError;
use crate::http::app::{App, blocking_holding, commit};
use crate::http::body::{Bound, Received, receive};
use crate::http::coding::Coding;
use crate::http::conditions;
use crate::http::extract::{Headers, Params, Target};
use crate::http::problem::Problem;
use crate::http::representation::{Found, Which};
use crate::http::states::{WriteQuery, content_type, stored};
use crate::http::upload::pack;
use crate::replica::command::{Change, Command, Content, Precondition, Refusal, Write};
use crate::replica::view::View;
use crate::types::hash::ContentHash;
use crate::types::limits::WHOLE_STATE_MAX;

/// A new version is first assumed to be no longer than this many times the old one.
const GROWTH: u64 = 2;
/// What is added to that, in bytes.
const ROOM: u64 = 64 << 10;

/// Stores what a delta makes of the current content.
///
/// # Errors
/// [`Problem`] when nothing was stored.
pub async fn patch(
    State(app): State<App>,
    target: Target,
    Params(query): Params<WriteQuery>,
    Headers(headers): Headers,
    body: Body,
) -> Result<Response, Problem> {
    query.check()?;
    let ttl = query.ttl()?;
    let precondition = conditions::of_write(&headers)?;
    let Precondition::Matches(tags) = &precondition else {
        return Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "if_match_required",
            "a delta fits one version only: name it by If-Match with the tag that you read",
        ));
    };
    if Coding::of_body(&headers)? != Coding::Dcz {
        let detail = "PATCH takes a delta, with Content-Encoding: dcz; a whole state goes with PUT";
        return Err(Coding::unsupported(detail));
    }
    let content_type = content_type(&headers)?;
    let bound = Bound {
        bytes: app.replica.limits().state_bytes.min(WHOLE_STATE_MAX),
        exceeded: Problem::whole_state_too_large,
    };
    let mut received = receive(&app, &headers, body, bound).await?;
    let view = target.namespace.view();
    let found = Found::look(&view, &target.id, Which::Shown, target.namespace.now())?;
    if !tags.contains(&found.etag) {
        let (id, current) = (target.id, Some(found.etag));
        return Err(Refusal::PreconditionFailed { id, current }.into());
    }
    check_dictionary(&received.bytes, found.placed.version.content)?;
    let size = found.placed.version.size;
    if size > WHOLE_STATE_MAX {
        return Err(Problem::whole_state_too_large(WHOLE_STATE_MAX));
    }
    let kept = found.placed.version.content_type.clone();
    let held = received.bytes.len() as u64 + size;
    received.reservation.cover(held).await?;
    let Received { bytes, reservation } = received;
    // The share goes with the read, which goes on when the client hangs up.
    let read = move |view: &View| {
        let base = view.content(&found.placed)?.unwrap_or_default();
        Ok::<_, Problem>((base, reservation))
    };
    let (base, reservation) = target.namespace.read_view(view, read).await?;
    let received = Received { bytes, reservation };
    let received = applied(received, base.into(), bound.bytes).await?;
    let (body, reservation) = pack(received).await?;
    let content = Content {
        body,
        content_type: content_type.or(kept),
        ttl,
    };
    let write = Write {
        id: target.id,
        precondition,
        change: Change::Put(content),
    };
    let command = Command::Write(vec![write]);
    stored(commit(target.namespace, command, reservation).await?)
}

fn check_dictionary(delta: &[u8], current: ContentHash) -> Result<(), Problem> {
    let (hash, _) = dcz::split(delta)?;
    if ContentHash(*hash).matches(&current) {
        return Ok(());
    }
    let detail = "the delta was made from other bytes than the state's current ones; read it again";
    let problem = Problem::new(StatusCode::CONFLICT, "dictionary_mismatch", detail);
    Err(problem.with("content_hash", current.to_hex()))
}

/// Applies a delta. Memory is set aside before it is taken.
async fn applied(received: Received, base: Bytes, limit: u64) -> Result<Received, Problem> {
    let Received {
        bytes,
        mut reservation,
    } = received;
    let held = (bytes.len() + base.len()) as u64;
    let likely = (base.len() as u64 * GROWTH + ROOM).min(limit);
    for bound in [likely, limit] {
        reservation.cover(held + bound).await?;
        let (delta, base) = (bytes.clone(), base.clone());
        let most = usize::try_from(bound).unwrap_or(usize::MAX);
        let apply = move || {
            let (_, frame) = dcz::split(&delta)?;
            Ok(dcz::decode(&base, frame, most))
        };
        let (content, share) = blocking_holding(reservation, apply).await?;
        reservation = share;
        match content {
            Err(DeltaError::TooLarge { .. }) if bound < limit => {}
            Err(DeltaError::TooLarge { .. }) => break,
            Err(error) => return Err(error.into()),
            Ok(content) => {
                let bytes = content.into();
                return Ok(Received { bytes, reservation });
            }
        }
    }
    Err(Problem::whole_state_too_large(limit))
}
