//! How the demonstration looks: headlines, columns that line up, and a mark for what held.

use std::io::{IsTerminal, stdout};

use crate::cli::demo::error::DemoError;
use crate::cli::error::CliError;
use crate::cli::output::print;
use crate::cli::text::Align;
use crate::config::process::wants_plain_text;

/// Columns of text that everything fits into.
const WIDTH: usize = 88;
/// What stands before everything below a headline.
const INDENT: &str = "   ";

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "32";
const CYAN: &str = "36";

/// A column: name, alignment, width.
pub type Column = (&'static str, Align, usize);

/// Writes to standard output, or nowhere when a program reads it.
#[derive(Debug)]
pub struct Show {
    colour: bool,
    silent: bool,
    steps: u32,
}

impl Show {
    /// Output for people, with colour on a terminal; none when `silent`.
    pub fn new(silent: bool) -> Self {
        Self {
            colour: stdout().is_terminal() && !wants_plain_text(),
            silent,
            steps: 0,
        }
    }

    /// A headline, and lines that say what is done.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn step(&mut self, headline: &str, doing: &str) -> Result<(), CliError> {
        self.steps += 1;
        let title = format!("{}  {headline} ", self.steps);
        let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count()));
        let (title, rule) = (self.paint(BOLD, &title), self.paint(CYAN, &rule));
        self.print(&format!("\n{title}{rule}"))?;
        for line in doing.lines() {
            self.print(&self.paint(DIM, &format!("{INDENT}{line}")))?;
        }
        Ok(())
    }

    /// An empty line.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn gap(&self) -> Result<(), CliError> {
        self.print("")
    }

    /// A plain line.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn say(&self, text: &str) -> Result<(), CliError> {
        self.print(&format!("{INDENT}{text}"))
    }

    /// A line at the left margin that stands out.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn title(&self, text: &str) -> Result<(), CliError> {
        self.print(&self.paint(BOLD, text))
    }

    /// The names of columns.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn header(&self, columns: &[Column]) -> Result<(), CliError> {
        let names: Vec<String> = columns.iter().map(|(name, ..)| (*name).into()).collect();
        self.print(&self.paint(DIM, &line_up(columns, &names)))
    }

    /// A row below them.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn row(&self, columns: &[Column], cells: &[String]) -> Result<(), CliError> {
        self.print(&line_up(columns, cells))
    }

    /// A row of sums, set apart from those above.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn total(&self, columns: &[Column], cells: &[String]) -> Result<(), CliError> {
        let width = columns.iter().map(|(_, _, width)| width + 2).sum::<usize>();
        let rule = "─".repeat(width.saturating_sub(2));
        self.print(&self.paint(DIM, &format!("{INDENT}{rule}")))?;
        self.print(&self.paint(BOLD, &line_up(columns, cells)))
    }

    /// Something that was checked and held; further lines stand below the first.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn held(&self, what: &str) -> Result<(), CliError> {
        let mark = self.paint(GREEN, "✓");
        let what = what.replace('\n', &format!("\n{INDENT}  "));
        self.print(&format!("{INDENT}{mark} {what}"))
    }

    /// Something that went wrong.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn failed(&self, what: &str) -> Result<(), CliError> {
        self.print(&self.paint(RED, &format!("{INDENT}✗ {what}")))
    }

    /// Shows a claim that holds; one that does not ends the demonstration.
    ///
    /// # Errors
    /// [`DemoError::Untrue`] with what was found instead.
    pub fn claim(&self, holds: bool, claim: &str, found: &str) -> Result<(), DemoError> {
        if holds {
            return Ok(self.held(claim)?);
        }
        Err(DemoError::Untrue {
            claim: format!("\"{claim}\""),
            found: found.to_owned(),
        })
    }

    fn print(&self, text: &str) -> Result<(), CliError> {
        if self.silent { Ok(()) } else { print(text) }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{style}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

fn line_up(columns: &[Column], cells: &[String]) -> String {
    let mut line = String::from(INDENT);
    for ((_, align, width), cell) in columns.iter().zip(cells) {
        match align {
            Align::Left => line.push_str(&format!("{cell:<width$}  ")),
            Align::Right => line.push_str(&format!("{cell:>width$}  ")),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// A share as percent: `1.5%`.
pub fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1}%", ratio * 100.0))
}

/// Enough of a hash to tell it from another one at a glance.
pub fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up_and_lines_end_where_the_text_ends() {
        let columns = [("NAME", Align::Left, 6), ("SIZE", Align::Right, 5)];
        let line = |name: &str, size: &str| line_up(&columns, &[name.into(), size.into()]);
        assert_eq!(line("é", "12"), "   é          12");
        assert_eq!(line("longer", ""), "   longer");
    }

    #[test]
    fn colour_is_for_terminals_only() {
        let mut show = Show::new(true);
        show.colour = false;
        assert_eq!(show.paint(RED, "x"), "x");
        show.colour = true;
        assert_eq!(show.paint(RED, "x"), "\u{1b}[1;31mx\u{1b}[0m");
    }

    #[test]
    fn a_claim_that_does_not_hold_says_so() {
        let show = Show::new(true);
        assert!(show.claim(true, "all equal", "").is_ok());
        let error = show.claim(false, "all equal", "b differs").unwrap_err();
        assert_eq!(error.to_string(), "\"all equal\" does not hold: b differs");
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(percent(Some(0.0146)), "1.5%");
        assert_eq!(percent(None), "-");
    }
}
