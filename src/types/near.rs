//! Which known word somebody may have meant by one that is not known, for messages.

/// Longest word that is compared; nobody means a longer one by a slip.
const LONGEST: usize = 48;

/// The word of `known` that takes the fewest slips to become `word`: at most one for every three characters of the
/// known one, and one at least. A slip is a character added, left out or changed, or two that changed places
/// (optimal string alignment distance). Of several the first.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let distances = known.iter().map(|&known| {
        let other: Vec<char> = known.chars().collect();
        (slips(&word, &other), (other.len() / 3).max(1), known)
    });
    let near = distances.filter(|(slips, most, _)| slips <= most);
    near.min_by_key(|(slips, _, _)| *slips)
        .map(|(_, _, known)| known)
}

/// Words as a sentence lists them: `a, b and c`.
pub fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [front @ .., last] => format!("{} and {last}", front.join(", ")),
    }
}

fn slips(one: &[char], other: &[char]) -> usize {
    // Rows of the table of distances between beginnings of both: the one before the last, the last.
    let (mut before, mut last): (Vec<usize>, Vec<usize>) =
        (Vec::new(), (0..=other.len()).collect());
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (last[j] + usize::from(a != b)).min(last[j + 1] + 1);
            least = least.min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_and_other_words_are_not() {
        let known = ["prefix", "after", "limit", "at"];
        for (word, meant) in [
            ("limt", Some("limit")),
            ("limits", Some("limit")),
            ("Limit", Some("limit")),
            ("ilmit", Some("limit")),
            ("prefxi", Some("prefix")),
            ("afer", Some("after")),
            ("att", Some("at")),
            ("foo", None),
            ("", None),
            ("limitation", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
        assert_eq!(nearest(&"limit".repeat(20), &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(listed(&[]), "");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
    }
}
