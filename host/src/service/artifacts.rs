//! Files that belong to results.
//!
//! They are on the disk before the result is handed in, in a bundle of this submission alone. If the
//! result is refused, the bundle goes; so a worker that comes too late changes nothing. If the answer
//! is lost, or the host dies in between, nobody knows yet whether the result was taken: the bundle
//! stays until it is old, and is then removed unless a result speaks of it.

use std::{error::Error, time::Duration};

use codeq_plugin::{
    Artifact, Batch, Complete, ErrorKind, Instant, List, Millis, Task, TaskResult, Text,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::sleep;

use super::{
    Service, ServiceError, Submission,
    tasks::{check_outcome, complete_of},
};
use crate::artifacts::{ArtifactError, BundleId, Found, KeptFile, NewFile, Owner};

/// A file that belongs to a result, as its worker hands it in.
#[derive(Clone, Debug)]
pub enum NewArtifact {
    /// Somewhere else already.
    Linked(Artifact),
    /// To be kept here.
    Content(NewFile),
}

/// A result's files are kept for as long as its task, which is removed a day after it was completed.
const RETENTION: Millis = Millis::DAY;
/// How often old bundles are looked through, and how many at a time.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
const STEP: usize = 100;
/// How long the looking waits between two steps, for others to get at the disk and the store.
const PAUSE: Duration = Duration::from_millis(100);

impl Service {
    /// A file of a task's result. A `bundle` that is named must be the one that the result speaks of.
    ///
    /// # Errors
    ///
    /// `NotFound`, or why the store or the disk did not answer.
    pub async fn artifact(
        &self,
        tenant: &str,
        id: &str,
        name: &str,
        bundle: Option<&str>,
    ) -> Result<KeptFile, ServiceError> {
        let task = self.task(tenant, id).await?;
        let result = self.one(self.store.get_result(Batch::One(task.id.clone())).await?);
        let result = result.map_err(|error| match error {
            ServiceError::NotFound(_) => ServiceError::NotFound("artifact not found"),
            other => other,
        })?;
        let named = result.artifacts.iter().filter(|artifact| artifact.name == *name);
        let kept = named
            .filter_map(|artifact| bundle_in(artifact, &task.id))
            .find(|id| bundle.is_none_or(|bundle| bundle == id.to_string()))
            .ok_or(ServiceError::NotFound("artifact not found"))?;
        let owner = Owner { tenant: tenant.to_owned(), task: task.id.to_string() };
        match self.artifacts.open(kept, owner, name.to_owned()).await {
            Ok(Some(file)) => Ok(file),
            Ok(None) => {
                tracing::warn!(
                    task = id,
                    name,
                    "an artifact is not in this host's directory; hosts of one backend share it"
                );
                Err(ServiceError::NotFound("artifact not found: its content is not on this host"))
            }
            Err(error) => Err(unusable(&error)),
        }
    }

    /// Keeps the files of submissions that make sense. Answers what to hand in to the store, and for
    /// each submission the bundle that was made for it.
    pub(super) async fn keep_artifacts(
        &self,
        submissions: Vec<Submission>,
    ) -> (Vec<Result<Complete, ServiceError>>, Vec<Option<BundleId>>) {
        let mut bundles = Vec::with_capacity(submissions.len());
        let mut completes = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let kept = self.keep(submission).await;
            bundles.push(kept.as_ref().ok().and_then(|(_, bundle)| *bundle));
            completes.push(kept.map(|(complete, _)| complete));
        }
        (completes, bundles)
    }

    async fn keep(
        &self,
        submission: Submission,
    ) -> Result<(Complete, Option<BundleId>), ServiceError> {
        let Submission { lease, outcome, artifacts } = submission;
        check_outcome(&outcome)?;
        let mut files = Vec::new();
        let mut all: List<Artifact> = List::with_capacity(artifacts.len());
        let mut kept = Vec::new();
        for artifact in artifacts {
            match artifact {
                NewArtifact::Linked(artifact) => all.push(artifact),
                NewArtifact::Content(file) => {
                    kept.push(all.len());
                    all.push(Artifact { name: file.name.as_str().into(), url: Text::new() });
                    files.push(file);
                }
            }
        }
        if files.is_empty() {
            return Ok((complete_of(lease, outcome, all), None));
        }
        let owner = Owner { tenant: lease.tenant_id.to_string(), task: lease.task_id.to_string() };
        let bundle = self.artifacts.keep(owner, files).await.map_err(|error| unusable(&error))?;
        for index in kept {
            let artifact = &mut all[index];
            let path = path_of(&lease.task_id, &artifact.name);
            artifact.url = format!("{}{path}{BUNDLE}{bundle}", self.artifacts.base()).into();
        }
        Ok((complete_of(lease, outcome, all), Some(bundle)))
    }

    /// Removes the bundles of submissions that were refused for good.
    pub(super) async fn drop_refused<T>(
        &self,
        bundles: Vec<Option<BundleId>>,
        answers: &[Result<T, ServiceError>],
    ) {
        let is_refused = |answer: &Result<T, ServiceError>| {
            answer.as_ref().err().is_some_and(|error| {
                matches!(
                    error,
                    ServiceError::Invalid(_)
                        | ServiceError::NotFound(_)
                        | ServiceError::NotOwner
                        | ServiceError::NotInProgress
                )
            })
        };
        let refused = bundles.into_iter().zip(answers).filter(|(_, answer)| is_refused(answer));
        self.drop_bundles(refused.filter_map(|(bundle, _)| bundle).collect()).await;
    }

    /// A task's bundles of which its result speaks. The worker may have linked to others' as well.
    pub(super) async fn bundles_of(&self, task: &Task) -> Result<Vec<BundleId>, ServiceError> {
        let result = match self.one(self.store.get_result(Batch::One(task.id.clone())).await?) {
            Ok(result) => result,
            Err(ServiceError::NotFound(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut own = Vec::new();
        for bundle in bundles_in(&result) {
            let owner = Owner { tenant: task.tenant_id.to_string(), task: task.id.to_string() };
            if self.artifacts.is_of(bundle, owner).await.map_err(|error| unusable(&error))? {
                own.push(bundle);
            }
        }
        Ok(own)
    }

    /// Removes bundles of which nobody speaks any more.
    pub(super) async fn drop_bundles(&self, bundles: Vec<BundleId>) {
        for bundle in bundles {
            if let Err(error) = self.artifacts.remove(bundle).await {
                tracing::warn!(%bundle, "{error}; trying again when they are old");
            }
        }
    }

    /// Removes old bundles of which no result speaks, over and over.
    pub(super) async fn clear_artifacts(&self) {
        loop {
            if let Err(error) = self.clear_artifacts_once().await {
                tracing::warn!(error, "old artifacts stay for now; trying again later");
            }
            sleep(INTERVAL).await;
        }
    }

    async fn clear_artifacts_once(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut walk = self.artifacts.walk(Instant::now() + Millis(-RETENTION.0)).await?;
        loop {
            let (rest, found) = walk.next(STEP).await?;
            walk = rest;
            if found.is_empty() {
                return Ok(());
            }
            let unneeded = self.unneeded(found).await?;
            tracing::debug!(count = unneeded.len(), "removing old artifacts");
            self.drop_bundles(unneeded).await;
            sleep(PAUSE).await;
        }
    }

    /// Those of the bundles of which no result speaks.
    async fn unneeded(&self, found: Vec<Found>) -> Result<Vec<BundleId>, ServiceError> {
        let mut unneeded = Vec::new();
        let (mut ids, mut tasks) = (Vec::new(), Vec::new());
        for Found { id, owner } in found {
            match owner {
                Some(owner) => {
                    ids.push(id);
                    tasks.push(Text::from(owner.task));
                }
                None => unneeded.push(id),
            }
        }
        let results = self.store.get_result(tasks.into()).await?;
        for (id, result) in ids.into_iter().zip(results) {
            match result.into_result() {
                Ok(result) if bundles_in(&result).any(|spoken_of| spoken_of == id) => {}
                Ok(_) => unneeded.push(id),
                Err(error) if error.kind() == ErrorKind::NotFound => unneeded.push(id),
                // Nobody knows, so it stays.
                Err(_) => {}
            }
        }
        Ok(unneeded)
    }
}

fn unusable(error: &ArtifactError) -> ServiceError {
    tracing::error!("{error}");
    ServiceError::Artifacts
}

/// Where the name of the bundle begins in a link.
const BUNDLE: &str = "?bundle=";

/// What stands in a URL as it is; everything else is percent-encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a task's file, behind what all paths begin with.
fn path_of(task: &str, name: &str) -> String {
    let encoded = |text| utf8_percent_encode(text, UNRESERVED);
    format!("/tasks/{}/artifacts/{}", encoded(task), encoded(name))
}

/// The bundle in which a file of a result is, if it is one that a host of this backend keeps.
fn bundle_in(artifact: &Artifact, task: &str) -> Option<BundleId> {
    let (link, bundle) = artifact.url.rsplit_once(BUNDLE)?;
    BundleId::parse(bundle).filter(|_| link.ends_with(&path_of(task, &artifact.name)))
}

fn bundles_in(result: &TaskResult) -> impl Iterator<Item = BundleId> {
    result.artifacts.iter().filter_map(|artifact| bundle_in(artifact, &result.task_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_its_bundle_wherever_hosts_are_reached() {
        const ID: &str = "0193576a0f5b7c3e8a1b2c3d4e5f6071";
        let artifact = |url: &str| Artifact { name: "a/ä b.txt".into(), url: url.into() };
        let path = format!("/tasks/1/artifacts/a%2F%C3%A4%20b.txt{BUNDLE}{ID}");
        for base in ["/v1/codeq", "https://queue.example.org/v1/codeq"] {
            let found = bundle_in(&artifact(&format!("{base}{path}")), "1");
            assert_eq!(found, BundleId::parse(ID));
        }
        for (url, task) in [
            (path.as_str(), "2"),
            ("https://files.example.org/a.txt", "1"),
            (&path.replace("b.txt", "c.txt"), "1"),
            (&path.replace(ID, &ID.to_uppercase()), "1"),
            (&path.replace(ID, "../../../etc/passwd"), "1"),
        ] {
            assert_eq!(bundle_in(&artifact(url), task), None, "{url}");
        }
    }
}
