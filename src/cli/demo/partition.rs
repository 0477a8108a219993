//! A partition with writes on both sides, one of them in conflict, and what becomes of it.

use std::time::Instant;

use reqwest::StatusCode;

use crate::cli::demo::api::Conflict;
use crate::cli::demo::error::DemoError;
use crate::cli::demo::recording::{Recording, State};
use crate::cli::demo::show::short;
use crate::cli::demo::stage::Stage;
use crate::cli::error::CliError;
use crate::cli::text::{count, human_bytes};
use crate::types::hash::ContentHash;

/// Parts the replicas, writes on both sides, joins them and resolves the conflict.
///
/// # Errors
/// [`DemoError`] when something did not happen as it should.
pub async fn partition(stage: &mut Stage, recording: &Recording) -> Result<(), DemoError> {
    stage.show.step(
        "A partition: a and b here, c there, and both sides go on writing",
        "the next turn: cities at b, units at c, and one player at both, differently",
    )?;
    let measured = stage.measure("partition and healing");
    // A link of either side keeps two replicas in step, and a is in the middle.
    stage.trio.b.api.link("a", &stage.trio.a.url()).await?;
    stage.trio.c.api.unlink("a").await?;
    stage.quiet().await?;
    write_on_both_sides(stage, recording).await?;
    heal(stage).await?;
    let parting = &recording.parting;
    let conflict = see_conflict(stage, &parting.contested).await?;
    resolve(stage, &conflict, &parting.contested.1).await?;
    stage.finish(measured).await?;
    Ok(())
}

async fn write_on_both_sides(stage: &mut Stage, recording: &Recording) -> Result<(), DemoError> {
    let parting = &recording.parting;
    let (b, c) = (stage.trio.b.api.clone(), stage.trio.c.api.clone());
    let (at_b, at_c) = &parting.contested;
    let here = [&parting.here[..], std::slice::from_ref(at_b)].concat();
    let there = [&parting.there[..], std::slice::from_ref(at_c)].concat();
    stage.put_each(&b, &here).await?;
    stage.put_each(&c, &there).await?;
    let side = stage.agreement(&[&stage.trio.a, &stage.trio.b]).await?;
    let other = c.root().await?;
    let claim = format!(
        "{} writes at b and {} at c were acknowledged\nroots: {} on a and b, {} on c",
        here.len(),
        there.len(),
        short(&side.root),
        short(&other.root)
    );
    let found = "c has the same root, although nothing connects it".to_owned();
    stage.show.claim(side.root != other.root, &claim, &found)
}

async fn heal(stage: &mut Stage) -> Result<(), DemoError> {
    stage.quiet().await?;
    let (before, healed) = (stage.meter.total(), Instant::now());
    stage.trio.c.api.link("a", &stage.trio.a.url()).await?;
    let root = stage.agreement(&stage.trio.all()).await?;
    let seconds = healed.elapsed().as_secs_f64();
    stage.quiet().await?;
    let traffic = stage.meter.total() - before;
    let line = format!(
        "healed: equal roots {} after {seconds:.3} s\n{} moved, {} on the wire for {}",
        short(&root.root),
        count(traffic.states, "state"),
        human_bytes(traffic.bytes_on_the_wire),
        human_bytes(traffic.bytes_if_sent_whole)
    );
    Ok(stage.show.held(&line)?)
}

/// The conflict must be the same everywhere, and neither version lost anywhere.
async fn see_conflict(stage: &Stage, (at_b, at_c): &(State, State)) -> Result<Conflict, DemoError> {
    let mut last = None;
    for replica in stage.trio.all() {
        let listed = replica.api.conflicts().await?;
        let found = format!("{} lists {}", replica.name, ids_of(&listed));
        let [conflict] = <[Conflict; 1]>::try_from(listed).map_err(|_| untrue(&found))?;
        let shown = replica.api.get(&at_b.id, None).await?;
        if conflict.id != at_b.id || shown.conflicts != 1 || shown.etag != conflict.etag {
            let header = shown.conflicts;
            return Err(untrue(&format!("{found}, Samestate-Conflicts: {header}")));
        }
        for state in [at_b, at_c] {
            let hash = ContentHash::of(&state.bytes).to_hex();
            let read = replica.api.get(&state.id, Some(&hash)).await?;
            let listed = conflict.versions.iter();
            let mut hashes = listed.filter_map(|version| version.content_hash.as_ref());
            if read.bytes != state.bytes || !hashes.any(|listed| *listed == hash) {
                return Err(untrue(&format!("{} lacks version {hash}", replica.name)));
            }
        }
        last = Some(conflict);
    }
    let conflict = last.ok_or_else(|| untrue("no replica was asked"))?;
    let id = &conflict.id;
    let hashes = conflict.versions.iter();
    let hashes = hashes.filter_map(|version| version.content_hash.as_deref());
    let urls = hashes.map(|hash| format!("\nGET …/states/{id}?version={}…", short(hash)));
    stage.show.held(&format!(
        "{id} is in conflict on all three (Samestate-Conflicts: 1)\n\
         nothing is lost, every replica has both versions:{}",
        urls.collect::<String>()
    ))?;
    Ok(conflict)
}

fn untrue(found: &str) -> DemoError {
    DemoError::Untrue {
        claim: "\"one conflict, the same everywhere, with both versions\"".to_owned(),
        found: found.to_owned(),
    }
}

fn ids_of(conflicts: &[Conflict]) -> String {
    let ids: Vec<&str> = conflicts
        .iter()
        .map(|conflict| conflict.id.as_str())
        .collect();
    format!("{} conflicts: {}", ids.len(), ids.join(", "))
}

async fn resolve(stage: &mut Stage, conflict: &Conflict, chosen: &State) -> Result<(), DemoError> {
    let (a, id) = (stage.trio.a.api.clone(), &chosen.id);
    let (bytes, content) = (&chosen.bytes, ContentHash::of(&chosen.bytes));
    stage.ledger.attempt(id, content);
    a.put(id, bytes.clone(), Some(&conflict.etag)).await?;
    stage.ledger.acknowledge(id);
    // Who decides on the same conflict a moment later must hear that it is decided.
    let late = a.put(id, bytes.clone(), Some(&conflict.etag)).await;
    let refused = StatusCode::PRECONDITION_FAILED.as_u16();
    if !matches!(&late, Err(CliError::Problem(problem)) if problem.status == refused) {
        return Err(DemoError::Untrue {
            claim: "\"a second PUT with the same If-Match is refused\"".to_owned(),
            found: format!("{late:?}"),
        });
    }
    let root = stage.agreement(&stage.trio.all()).await?;
    let mut left = 0;
    for replica in stage.trio.all() {
        left += replica.api.conflicts().await?.len();
    }
    let claim = format!(
        "a PUT with If-Match resolved it, a second one got {refused}\n\
         no conflicts left, equal roots {}",
        short(&root.root)
    );
    stage
        .show
        .claim(left == 0, &claim, &format!("{left} conflicts are left"))
}
