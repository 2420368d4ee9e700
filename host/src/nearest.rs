//! Guessing what somebody meant who misspelled a name.

/// The name that is nearest to `name`, if it is near enough to have been meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // From about this similarity on, a guess helps more often than it annoys.
    const ENOUGH: f64 = 0.75;
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(similarity, _)| *similarity >= ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognized_and_a_stranger_is_not() {
        let known = ["redis", "memory", "sqlite"];
        assert_eq!(nearest("reddis", known), Some("redis"));
        assert_eq!(nearest("Memroy", known), Some("memory"));
        assert_eq!(nearest("cassandra", known), None);
    }
}
