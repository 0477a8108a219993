//! `GET /v1/ns/{ns}/agreement`: which replicas hold which root, by the heads that they have signed.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::clock::rfc3339;
use crate::http::app::App;
use crate::http::extract::InNamespace;
use crate::http::problem::Problem;
use crate::replica::view::View;
use crate::roots::entry::RootEntry;
use crate::roots::head::SignedHead;
use crate::roots::witness::Witnessed;
use crate::types::hash::{NodeHash, hex};
use crate::wire::roots::AccusationBody;

/// Entries of the own log that are looked through for the root of another replica.
const LOOK_BACK: u64 = 10_000;

/// How far a replica is behind this one.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Lag {
    /// Changes of this replica's feed since it held that root.
    changes: u64,
    /// Time since this replica wrote that root down; 0 when it holds it still.
    millis: u64,
}

/// A replica by its newest signed head.
#[derive(Debug, Serialize)]
struct Standing {
    replica: String,
    key: String,
    /// The root that it held last.
    root: String,
    /// The position of its own feed then.
    seq: u64,
    /// Since when it holds that root, by its own clock.
    since: String,
    /// When this replica heard of it; absent for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    heard: Option<String>,
    /// True when this replica holds the same root now.
    agrees: bool,
    /// How far it is behind; null when this replica is not known to have held its root.
    lag: Option<Lag>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct AgreementBody {
    /// The root of now.
    root: String,
    seq: u64,
    /// True when every replica here has that root.
    agreed: bool,
    replicas: Vec<Standing>,
    accusations: Vec<AccusationBody>,
}

/// Tells who agrees.
///
/// # Errors
/// [`Problem`] when heads cannot be read.
pub async fn get(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
) -> Result<Json<AgreementBody>, Problem> {
    let (name, now) = (namespace.name().clone(), namespace.now());
    let told = namespace.read(move |view| {
        let snapshot = view.snapshot();
        let own = app.replica.signed_head(&name, view)?;
        let mut heads: Vec<_> = own.into_iter().map(|own| (own, None)).collect();
        let witnessed = newest_of_each(snapshot.witnessed()?);
        heads.extend(witnessed.map(|seen| (seen.head, Some(seen.heard_at))));
        let first = snapshot.root_log_size()?.saturating_sub(LOOK_BACK);
        let log = snapshot.root_entries(first, LOOK_BACK as usize)?;
        let replicas = heads.iter().map(|head| stand(view, now, &log, head));
        let replicas: Vec<Standing> = replicas.collect();
        let held = snapshot.accusations()?;
        Ok::<_, Problem>(AgreementBody {
            root: view.head().root.hash.to_hex(),
            seq: view.head().seq,
            agreed: replicas.iter().all(|replica| replica.agrees),
            replicas,
            accusations: held.iter().map(AccusationBody::from).collect(),
        })
    });
    Ok(Json(told.await?))
}

/// One head for each replica, by the key that it signed with last.
fn newest_of_each(mut witnessed: Vec<Witnessed>) -> impl Iterator<Item = Witnessed> {
    witnessed.sort_by_key(|seen| (seen.head.head.replica, Reverse(seen.heard_at)));
    witnessed.dedup_by_key(|seen| seen.head.head.replica);
    witnessed.into_iter()
}

fn stand(
    view: &View,
    now: u64,
    log: &[(u64, RootEntry)],
    (signed, heard): &(SignedHead, Option<u64>),
) -> Standing {
    let newest = &signed.head.newest;
    Standing {
        replica: signed.head.replica.to_string(),
        key: hex(&signed.key.0),
        root: newest.root.to_hex(),
        seq: newest.seq,
        since: rfc3339(newest.time),
        heard: heard.map(rfc3339),
        agrees: newest.root == view.head().root.hash,
        lag: lag(view, now, &newest.root, log),
    }
}

/// How long ago this replica held a root, which its log tells.
fn lag(view: &View, now: u64, root: &NodeHash, log: &[(u64, RootEntry)]) -> Option<Lag> {
    if *root == view.head().root.hash {
        return Some(Lag {
            changes: 0,
            millis: 0,
        });
    }
    // Positions of another life of the feed say nothing about this one.
    let epoch = view.identity().epoch;
    let mut newest_first = log.iter().rev();
    let (_, entry) = newest_first.find(|(_, entry)| (&entry.root, entry.epoch) == (root, epoch))?;
    Some(Lag {
        changes: view.head().seq.saturating_sub(entry.seq),
        millis: now.saturating_sub(entry.time),
    })
}
