//! Static tokens whose bearers no tenant can have: everything they ask for is answered with 403.
//!
//! The same rules say so to each request; here they are applied when the host starts, so that
//! somebody hears of it who can mend it.

use serde_json::{Map, Value};

use super::AuthProvider;

/// The claims that may name the tenant.
const CLAIMS: [&str; 5] = ["tid", "tenantId", "tenant_id", "organizationId", "organization_id"];

/// What is wrong with each of the tokens that belong to no tenant.
pub(crate) fn tokens_of_no_tenant(provider: &AuthProvider) -> Vec<String> {
    let mut messages = Vec::new();
    for config in configs_of_static(provider) {
        let entries = match config.get("tokens").unwrap_or(config) {
            Value::Array(entries) => entries.as_slice(),
            entry => std::slice::from_ref(entry),
        };
        messages.extend(entries.iter().filter_map(Value::as_object).filter_map(problem_of));
    }
    messages
}

/// The configurations of providers `static`, which may be below a `multi`.
fn configs_of_static(provider: &AuthProvider) -> Vec<&Value> {
    match provider.name.as_str() {
        "static" => vec![&provider.config],
        "multi" => {
            let nested = provider.config.get("providers").and_then(Value::as_array);
            let is_static = |nested: &&Value| {
                nested
                    .get("type")
                    .and_then(Value::as_str)
                    .is_some_and(|name| name.trim() == "static")
            };
            let nested = nested.into_iter().flatten().filter(is_static);
            nested.filter_map(|nested| nested.get("config")).collect()
        }
        _ => Vec::new(),
    }
}

fn problem_of(entry: &Map<String, Value>) -> Option<String> {
    let subject = entry.get("subject").and_then(Value::as_str).map(str::trim);
    let subject = subject.filter(|subject| !subject.is_empty()).unwrap_or("static");
    let raw = entry.get("raw").and_then(Value::as_object);
    let claims: Vec<&Value> =
        CLAIMS.iter().filter_map(|name| raw.and_then(|raw| raw.get(*name))).collect();
    let tenants = claims.iter().map(|claim| claim.as_str().map(str::trim));
    let why = match tenants.collect::<Option<Vec<&str>>>().as_deref() {
        Some([]) if is_label(subject) => return None,
        Some([]) => "its subject is no name of a tenant, and its `raw` has none either",
        Some([tenant, others @ ..])
            if is_label(tenant) && others.iter().all(|other| other == tenant) =>
        {
            return None;
        }
        Some(_) | None => "its `raw` names two tenants, or something that is no name of a tenant",
    };
    Some(format!(
        "the token of `{subject}` is refused whatever it asks for (403): {why}. Name one with `raw: \
         {{ tenantId: … }}`: 2 to 63 lower-case letters, digits and hyphens, a letter first"
    ))
}

/// `^[a-z][a-z0-9-]{1,62}$`
fn is_label(text: &str) -> bool {
    (2..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
