//! The files of results, as workers send them and readers fetch them.

use std::{collections::HashSet, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use codeq_plugin::Artifact;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::Reader,
    error::ApiError,
    openapi::{NotFound, READERS, Refusals},
    params::{Path, Query},
};
use crate::{
    artifacts::NewFile,
    service::{NewArtifact, Service},
};

/// At most how many artifacts a result has.
const MOST_ARTIFACTS: usize = 100;
/// The longest name of a file that is kept here, in bytes.
const LONGEST_NAME: usize = 255;
/// The longest media type, in bytes.
const LONGEST_TYPE: usize = 255;
/// The media type of a file whose worker does not say.
const ANY_TYPE: &str = "application/octet-stream";
/// How much of a file is read at once.
const CHUNK: usize = 64 * 1024;

/// The usual alphabet; padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file that belongs to a result, as a worker sends it.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewArtifact)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArtifactBody {
    /// Unique within the result.
    #[serde(default)]
    #[schema(required, min_length = 1)]
    name: String,
    /// Where it is, if it is somewhere else already.
    url: Option<String>,
    /// What is in it, if it is to be kept here: Base64, padded or not.
    content_base64: Option<String>,
    /// Its media type, if it is to be kept here.
    content_type: Option<String>,
}

/// Reads the artifacts of a result, each with contents of up to so many bytes.
pub(crate) fn read(
    bodies: Vec<ArtifactBody>,
    max_bytes: usize,
) -> Result<Vec<NewArtifact>, ApiError> {
    if bodies.len() > MOST_ARTIFACTS {
        let message = format!("a result has at most {MOST_ARTIFACTS} artifacts");
        return Err(ApiError::bad_request(message));
    }
    let read = |body| read_one(body, max_bytes);
    let artifacts = bodies.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    check_names(&artifacts)?;
    Ok(artifacts)
}

fn read_one(body: ArtifactBody, max_bytes: usize) -> Result<NewArtifact, ApiError> {
    let name = body.name;
    if name.trim().is_empty() {
        return Err(ApiError::bad_request("artifact without a name"));
    }
    if let Some(url) = body.url.filter(|url| !url.is_empty()) {
        return Ok(NewArtifact::Linked(Artifact { name: name.into(), url: url.into() }));
    }
    let Some(base64) = body.content_base64 else {
        return Err(wrong(&name, "url or contentBase64 is required"));
    };
    check_name(&name)?;
    let content_type = match body.content_type.as_deref().map(str::trim) {
        None | Some("") => ANY_TYPE.to_owned(),
        Some(text) => checked_type(&name, text)?,
    };
    let content = decode(&name, base64, max_bytes)?;
    Ok(NewArtifact::Content(NewFile { name, content_type, content }))
}

fn wrong(name: &str, problem: &str) -> ApiError {
    ApiError::bad_request(format!("artifact {name}: {problem}"))
}

/// A name may be anything that a URL can end with.
fn check_name(name: &str) -> Result<(), ApiError> {
    if name.len() > LONGEST_NAME {
        let begin: String = name.chars().take(40).collect();
        let problem = format!("the name is longer than {LONGEST_NAME} bytes");
        Err(wrong(&format!("{}…", begin.escape_debug()), &problem))
    } else if name.chars().any(char::is_control) {
        Err(wrong(&name.escape_debug().to_string(), "the name contains control characters"))
    } else if matches!(name, "." | "..") {
        Err(wrong(name, "a URL cannot end with such a name"))
    } else {
        Ok(())
    }
}

fn checked_type(name: &str, text: &str) -> Result<String, ApiError> {
    let is_type = text.len() <= LONGEST_TYPE
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
    if is_type {
        return Ok(text.to_owned());
    }
    Err(wrong(name, "invalid contentType (use a media type such as text/plain)"))
}

fn decode(name: &str, mut base64: String, max_bytes: usize) -> Result<Vec<u8>, ApiError> {
    // Encoders that write mail break lines.
    if base64.contains(['\r', '\n']) {
        base64.retain(|c| !matches!(c, '\r' | '\n'));
    }
    let too_large = || {
        let message = format!("artifact {name}: content is larger than {max_bytes} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    if base64.len().saturating_sub(4) / 4 * 3 > max_bytes {
        return Err(too_large());
    }
    let content = BASE64
        .decode(base64)
        .map_err(|error| wrong(name, &format!("contentBase64 is not base64: {error}")))?;
    if content.len() > max_bytes { Err(too_large()) } else { Ok(content) }
}

/// A file that is kept here is fetched by its name, so no other may have it.
fn check_names(artifacts: &[NewArtifact]) -> Result<(), ApiError> {
    let mut names = HashSet::new();
    let mut twice = HashSet::new();
    for artifact in artifacts {
        let name = name_of(artifact);
        if !names.insert(name) {
            twice.insert(name);
        }
    }
    let is_kept = |artifact: &&NewArtifact| matches!(artifact, NewArtifact::Content(_));
    match artifacts.iter().filter(is_kept).map(name_of).find(|name| twice.contains(name)) {
        Some(name) => Err(wrong(name, "another artifact has the same name")),
        None => Ok(()),
    }
}

fn name_of(artifact: &NewArtifact) -> &str {
    match artifact {
        NewArtifact::Linked(artifact) => &artifact.name,
        NewArtifact::Content(file) => &file.name,
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BundleQuery {
    /// Makes sure that it is the very file that a link meant.
    bundle: Option<String>,
}

/// A file of a task's result.
#[utoipa::path(
    get, operation_id = "get_artifact", path = "/tasks/{id}/artifacts/{name}", tag = READERS,
    params(
        ("id" = String, Path, description = "The task."),
        ("name" = String, Path, description = "What the worker called it."),
        BundleQuery,
    ),
    responses(
        (status = 200, description = "What is in it.", body = Vec<u8>, content_type = "*/*"),
        NotFound, Refusals,
    ),
)]
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Reader(caller): Reader,
    Path((id, name)): Path<(String, String)>,
    Query(query): Query<BundleQuery>,
) -> Result<Response, ApiError> {
    let file = service.artifact(&caller.tenant, &id, &name, query.bundle.as_deref()).await?;
    let text = |text: &str| {
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(ANY_TYPE))
    };
    let headers: [(HeaderName, HeaderValue); 4] = [
        (CONTENT_TYPE, text(&file.content_type)),
        (CONTENT_LENGTH, file.bytes.into()),
        // A browser must neither show what a worker made as a page of this site nor guess at it.
        (CONTENT_DISPOSITION, text(&disposition(&name))),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let content = tokio::fs::File::from_std(file.content);
    let body = Body::from_stream(ReaderStream::with_capacity(content, CHUNK));
    Ok((headers, body).into_response())
}

/// Under which name a browser keeps a file: without directories that the name may speak of.
fn disposition(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(last, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(name: &str, base64: &str) -> ArtifactBody {
        ArtifactBody {
            name: name.into(),
            url: None,
            content_base64: Some(base64.into()),
            content_type: None,
        }
    }

    fn decoded(base64: &str) -> Result<Vec<u8>, String> {
        let artifacts = read(vec![content("a", base64)], 10).map_err(ApiError::into_message)?;
        match artifacts.into_iter().next() {
            Some(NewArtifact::Content(file)) => Ok(file.content),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn contents_are_base64_with_padding_or_without_in_lines_or_not() {
        for (base64, content) in
            [("", ""), ("YQ", "a"), ("YQ==", "a"), ("YWI", "ab"), ("YW\r\nJj\n", "abc")]
        {
            assert_eq!(decoded(base64).unwrap(), content.as_bytes(), "{base64}");
        }
        assert_eq!(decoded("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        for wrong in ["Y", "Y Q", "-_-_", "YR==", "ä", "=", "YQ==YQ=="] {
            let message = decoded(wrong).unwrap_err();
            assert!(message.starts_with("artifact a: contentBase64 is not base64: "), "{wrong}");
        }
    }

    #[test]
    fn contents_up_to_the_limit_are_taken() {
        assert_eq!(decoded("MDEyMzQ1Njc4OQ==").unwrap(), b"0123456789");
        for longer in ["MDEyMzQ1Njc4OWE=", "MDEyMzQ1Njc4OWFi", &"A".repeat(1000)] {
            let message = decoded(longer).unwrap_err();
            assert_eq!(message, "artifact a: content is larger than 10 bytes");
        }
    }

    #[test]
    fn a_file_that_is_kept_has_a_name_of_its_own_in_its_result() {
        let linked = |name: &str| ArtifactBody {
            url: Some("https://files.example.org/".into()),
            ..content(name, "")
        };
        assert!(read(vec![content("a", ""), content("A", ""), content("a ", "")], 0).is_ok());
        assert!(read(vec![linked("a"), linked("a"), content("b", "")], 0).is_ok());
        for (one, other) in [(content("a", ""), content("a", "")), (linked("a"), content("a", ""))]
        {
            let message = read(vec![one, other], 0).unwrap_err().into_message();
            assert_eq!(message, "artifact a: another artifact has the same name");
        }
    }

    #[test]
    fn a_download_is_never_called_by_a_directory() {
        assert_eq!(disposition("a b.txt"), "attachment; filename*=UTF-8''a%20b%2Etxt");
        assert_eq!(disposition("../é"), "attachment; filename*=UTF-8''%C3%A9");
        assert_eq!(disposition("C:\\\"x\""), "attachment; filename*=UTF-8''%22x%22");
    }
}
