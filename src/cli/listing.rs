//! What a replica holds: `ls`, `history`, and the pages that `import` and `export` compare with.

use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::options::Options;
use crate::cli::output::print;
use crate::cli::text::{Align, Table, human_bytes, printable, utc};
use crate::types::id::GameId;

/// Rows asked for at once.
const PAGE_ROWS: &str = "1000";

/// List states
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate ls match/eu-1/")]
pub struct ListArgs {
    /// Only ids that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
}

/// List the retained versions of a state, newest first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  samestate history match/eu-1/42")]
pub struct HistoryArgs {
    /// The state
    id: GameId,
}

/// One state in a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateRow {
    /// Its id.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// Changes with every write and conflict.
    pub etag: String,
    /// SHA-256 of its bytes in hexadecimal.
    pub content_hash: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub updated_at: u64,
    /// What later servers say beyond that.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Reads a listing page by page, in order of ids.
#[derive(Debug)]
pub struct Pager {
    client: Client,
    prefix: String,
    after: Option<String>,
    ended: bool,
}

impl Pager {
    /// A listing of all ids that begin with `prefix`.
    pub fn new(client: Client, prefix: &str) -> Self {
        Self {
            client,
            prefix: prefix.to_owned(),
            after: None,
            ended: false,
        }
    }

    /// The next page, `None` behind the last one.
    ///
    /// # Errors
    /// As [`Client::ask`], and [`CliError::NotSamestate`] for pages that do not go on.
    pub async fn next(&mut self) -> Result<Option<Vec<StateRow>>, CliError> {
        #[derive(Deserialize)]
        struct Page {
            states: Vec<StateRow>,
            next: Option<String>,
        }
        if self.ended {
            return Ok(None);
        }
        let mut query = vec![("prefix", self.prefix.as_str()), ("limit", PAGE_ROWS)];
        query.extend(self.after.as_deref().map(|after| ("after", after)));
        let request = self.client.request(Method::GET, "states", &query);
        let page: Page = self.client.parse(&self.client.ask(request).await?)?;
        // A server that repeats itself must not keep the client busy for ever.
        let goes_on = page.next.is_some() && page.next != self.after;
        self.ended = !goes_on;
        self.after = page.next;
        Ok(Some(page.states))
    }
}

/// Prints a listing page by page.
///
/// # Errors
/// As [`Pager::next`], and [`CliError::Output`].
pub async fn list(args: ListArgs, options: &Options) -> Result<ExitCode, CliError> {
    let mut pager = Pager::new(options.client()?, &args.prefix);
    let mut header = !options.json;
    while let Some(rows) = pager.next().await? {
        if rows.is_empty() {
            continue;
        }
        let mut text = String::new();
        if std::mem::take(&mut header) {
            text.push_str(&row_line("SIZE", "UPDATED (UTC)", "ID"));
        }
        for row in &rows {
            text.push_str(&if options.json {
                json_line(row)?
            } else {
                row_line(
                    &human_bytes(row.size),
                    &utc(row.updated_at),
                    &printable(&row.id),
                )
            });
        }
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns of fixed width: a listing is shown page by page, before its widest row is known.
fn row_line(size: &str, updated: &str, id: &str) -> String {
    format!("{size:>10}  {updated:<19}  {id}\n")
}

/// A row as one line of JSON.
fn json_line(row: &StateRow) -> Result<String, CliError> {
    let text = serde_json::to_string(row);
    let text = text.map_err(|error| CliError::Output(error.into()))?;
    Ok(text + "\n")
}

/// Prints the retained versions of a state.
///
/// # Errors
/// As [`Client::ask`], and [`CliError::Output`].
pub async fn history(args: HistoryArgs, options: &Options) -> Result<ExitCode, CliError> {
    #[derive(Deserialize)]
    struct History {
        versions: Vec<VersionRow>,
    }
    let client = options.client()?;
    let request = client.state_request(Method::GET, "history", &args.id, &[])?;
    let text = client.ask(request).await?;
    if options.json {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let history: History = client.parse(&text)?;
    print(&version_table(&history.versions))?;
    Ok(ExitCode::SUCCESS)
}

/// One retained version.
#[derive(Debug, Deserialize)]
struct VersionRow {
    content_hash: Option<String>,
    size: u64,
    updated_at: u64,
    #[serde(default)]
    deleted: bool,
    expires_at: Option<u64>,
}

fn version_table(versions: &[VersionRow]) -> String {
    let mut table = Table::new(&[
        ("UPDATED (UTC)", Align::Left),
        ("SIZE", Align::Right),
        ("VERSION", Align::Left),
    ]);
    for version in versions {
        let hash = version.content_hash.as_deref().filter(|_| !version.deleted);
        let mut what = printable(hash.unwrap_or("deleted")).into_owned();
        if let Some(at) = version.expires_at {
            what += &format!("  until {}", utc(at));
        }
        table.row([utc(version.updated_at), human_bytes(version.size), what]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_what_they_do_not_know() {
        let line =
            r#"{"id":"a","size":1,"etag":"\"e\"","content_hash":"ab","updated_at":5,"new":true}"#;
        let row: StateRow = serde_json::from_str(line).unwrap();
        assert_eq!(json_line(&row).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn deletions_are_told_from_versions() {
        let json = r#"[
            {"content_hash": null, "size": 0, "updated_at": 1000, "deleted": true},
            {"content_hash": "cd34", "size": 1, "updated_at": 0, "expires_at": 9000},
            {"content_hash": "ab12", "size": 2048, "updated_at": 0}
        ]"#;
        let versions: Vec<VersionRow> = serde_json::from_str(json).unwrap();
        let expected = "\
UPDATED (UTC)           SIZE  VERSION
1970-01-01 00:00:01      0 B  deleted
1970-01-01 00:00:00      1 B  cd34  until 1970-01-01 00:00:09
1970-01-01 00:00:00  2.0 KiB  ab12
";
        assert_eq!(version_table(&versions), expected);
    }
}
