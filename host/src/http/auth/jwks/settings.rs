//! How the provider `jwks` is configured.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

/// The settings of one provider.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) url: Url,
    pub(super) issuers: Vec<String>,
    pub(super) audiences: Vec<String>,
    pub(super) clock_skew: Duration,
    pub(super) http_timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    jwks_url: Option<String>,
    issuer: Option<OneOrMore>,
    audience: Option<OneOrMore>,
    clock_skew: Option<Value>,
    http_timeout: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

const CLOCK_SKEW: Duration = Duration::from_secs(60);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// A longer skew would make a token's end meaningless.
const LONGEST_SKEW: Duration = Duration::from_secs(15 * 60);
/// Callers wait for it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

impl Settings {
    pub(super) fn read(config: &Value) -> Result<Settings, String> {
        if !config.is_object() {
            return Err("needs a mapping with `jwksUrl`, `issuer` and `audience`".into());
        }
        let written =
            Written::deserialize(config).map_err(|error| format!("cannot be used: {error}"))?;
        let url = written.jwks_url.filter(|url| !url.trim().is_empty());
        let url = url.ok_or("needs `jwksUrl`: where the issuer publishes its keys")?;
        let url = Url::parse(url.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let http_timeout =
            duration("httpTimeout", written.http_timeout, HTTP_TIMEOUT, LONGEST_TIMEOUT)?;
        if http_timeout.is_zero() {
            return Err("has an `httpTimeout` of nothing: write one such as 5s".into());
        }
        Ok(Settings {
            url: url.ok_or(
                "has a `jwksUrl` that is no URL such as https://id.example.org/.well-known/jwks.json",
            )?,
            issuers: texts(written.issuer)
                .ok_or("needs `issuer`: the `iss` of the tokens, or a list of them")?,
            audiences: texts(written.audience)
                .ok_or("needs `audience`: the `aud` of tokens for this host, or a list of them")?,
            clock_skew: duration("clockSkew", written.clock_skew, CLOCK_SKEW, LONGEST_SKEW)?,
            http_timeout,
        })
    }
}

fn texts(written: Option<OneOrMore>) -> Option<Vec<String>> {
    let texts = match written? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    };
    Some(texts).filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty()))
}

/// A duration as codeQ has it: a text such as `60s`, or a number of nanoseconds.
fn duration(
    name: &str,
    written: Option<Value>,
    default: Duration,
    longest: Duration,
) -> Result<Duration, String> {
    let read = match &written {
        None | Some(Value::Null) => Some(default),
        // Fewer can only be meant as something else.
        Some(Value::Number(nanos)) => nanos
            .as_u64()
            .map(Duration::from_nanos)
            .filter(|duration| duration.is_zero() || *duration >= Duration::from_millis(1)),
        Some(Value::String(text)) if text.trim() == "0" => Some(Duration::ZERO),
        Some(Value::String(text)) => {
            text.trim().parse::<SignedDuration>().ok().and_then(|duration| duration.try_into().ok())
        }
        Some(_) => None,
    };
    read.filter(|duration| *duration <= longest).ok_or_else(|| {
        let written = written.unwrap_or_default();
        format!("has the `{name}` {written}, which is no duration up to {longest:?} such as \"5s\"")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: Value) -> Result<Settings, String> {
        let mut config = json!({
            "jwksUrl": "https://id.example.org/keys", "issuer": "id", "audience": "codeq",
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Settings::read(&config)
    }

    #[test]
    fn durations_are_texts_or_nanoseconds() {
        let skew = |written: Value| {
            read(json!({ "clockSkew": written })).ok().map(|settings| settings.clock_skew.as_secs())
        };
        assert_eq!(skew(json!(null)), Some(60));
        assert_eq!(skew(json!("1m30s")), Some(90));
        assert_eq!(skew(json!("0s")), Some(0));
        assert_eq!(skew(json!("0")), Some(0));
        assert_eq!(skew(json!(90_000_000_000_u64)), Some(90));
        assert_eq!(skew(json!(0)), Some(0));
        for wrong in [json!(60), json!("60"), json!("-5s"), json!("soon"), json!("2h"), json!([])] {
            assert_eq!(skew(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn issuers_and_audiences_may_be_several() {
        let settings = read(json!({ "issuer": ["a", "b"], "audience": ["c"] })).unwrap();
        assert_eq!((settings.issuers.len(), settings.audiences), (2, vec!["c".to_owned()]));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (more, told) in [
            (json!({ "jwksUrl": null }), "needs `jwksUrl`"),
            (json!({ "jwksUrl": "id/keys" }), "`jwksUrl` that is no URL"),
            (json!({ "jwksUrl": "ftp://id/keys" }), "`jwksUrl` that is no URL"),
            (json!({ "issuer": null }), "needs `issuer`"),
            (json!({ "issuer": "" }), "needs `issuer`"),
            (json!({ "audience": [] }), "needs `audience`"),
            (json!({ "clockSkew": 60 }), "the `clockSkew` 60, which is no duration"),
            (json!({ "httpTimeout": "0s" }), "`httpTimeout` of nothing"),
            (json!({ "jwksUri": "x" }), "unknown field `jwksUri`"),
        ] {
            let problem = read(more).unwrap_err();
            assert!(problem.contains(told), "{problem}");
        }
        assert!(Settings::read(&json!("token")).unwrap_err().contains("needs a mapping"));
    }
}
