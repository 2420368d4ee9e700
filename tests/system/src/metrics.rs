//! What a host counts, read as strictly as the text format of Prometheus is defined.

use std::collections::{BTreeMap, BTreeSet};

/// The figures of a host at one moment.
#[derive(Debug)]
pub struct Metrics {
    /// The text as it came.
    pub text: String,
    /// The kind of each figure, by its name.
    pub kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format.
    pub fn parse(text: String) -> Metrics {
        assert!(text.ends_with('\n'), "it ends in the middle of a line");
        let mut metrics =
            Metrics { text: String::new(), kinds: BTreeMap::new(), samples: Vec::new() };
        let (mut helped, mut family) = (BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(is_name(name) && helped.contains(name), "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let kinds = &mut metrics.kinds;
                assert!(kinds.insert(name.into(), kind.into()).is_none(), "twice: {line}");
                family = name.to_owned();
            } else {
                let sample = Sample::parse(line);
                let of_family = ["", "_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| sample.name == format!("{family}{suffix}"));
                assert!(of_family, "beside its family `{family}`: {line}");
                assert!(
                    metrics.kinds[&family] != "counter" || family.ends_with("_total"),
                    "a counter's name ends with _total: {line}"
                );
                metrics.samples.push(sample);
            }
        }
        metrics.text = text;
        metrics.check_histograms();
        metrics
    }

    fn check_histograms(&self) {
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let counts = format!("{name}_count");
            for count in self.samples.iter().filter(|sample| sample.name == counts) {
                let buckets: Vec<&Sample> = self
                    .samples
                    .iter()
                    .filter(|sample| sample.name == format!("{name}_bucket"))
                    .filter(|sample| count.labels.iter().all(|label| sample.has(label)))
                    .collect();
                assert!(buckets.is_sorted_by(|a, b| a.value <= b.value), "{buckets:?}");
                let last = buckets.last().expect("a histogram has buckets");
                assert_eq!((&*last.labels["le"], last.value), ("+Inf", count.value));
            }
        }
    }

    /// The sum of a figure's series that have these labels; nothing if there are none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self
            .samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(|sample| {
                labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
            })
            .map(|sample| sample.value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The same; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or(0.0)
    }

    /// The values that a label of a figure has.
    pub fn labels(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.filter_map(|sample| sample.labels.get(label).map(String::as_str)).collect()
    }
}

impl Sample {
    fn parse(line: &str) -> Sample {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
            None => (series, ""),
        };
        assert!(is_name(name), "{line}");
        let labels = labels.split_terminator("\",").map(|label| {
            let (label, value) = label.split_once("=\"").expect(line);
            assert!(is_name(label), "{line}");
            (label.to_owned(), value.strip_suffix('"').unwrap_or(value).to_owned())
        });
        Sample { name: name.into(), labels: labels.collect(), value: value.parse().expect(line) }
    }

    fn has(&self, (label, value): (&String, &String)) -> bool {
        self.labels.get(label) == Some(value)
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
