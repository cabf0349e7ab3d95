//! "Did you mean": the known word that a misspelt one is closest to.

/// The candidate nearest to `word`, if it is near enough to be a misspelling: at most one edit for every three letters.
/// Letter case is no difference.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let lower = word.to_lowercase();
    let budget = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= budget && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn misspellings_find_their_word_and_others_do_not() {
        let words = ["event", "table", "method", "mapping"];
        assert_eq!(closest("metod", words), Some("method"));
        assert_eq!(closest("Mapping", words), Some("mapping"));
        assert_eq!(closest("tabel", words), Some("table"));
        assert_eq!(closest("colour", words), None);
        assert_eq!(closest("", words), None);
    }
}
