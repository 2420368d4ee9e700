//! Admin views of a cluster, and its cleanup: one queue after the other.
//!
//! A list of everything goes through the queues in the order of their tags; its cursor is the tag of a queue,
//! and the cursor within.

use codeq_plugin::{Cleanup, Error, ErrorKind, ListTasks, Page, Queue, QueueStats, Result, Text};
use futures_util::future::join_all;

use crate::{
    cluster::Cluster,
    keys::Scope,
    listing::{check_cursor, place_of},
    record,
};

/// How many queues are counted at the same time.
const COUNTED_AT_ONCE: usize = 32;

impl Cluster {
    pub(crate) async fn queue_stats(&self, queue: Queue) -> Result<QueueStats> {
        let scope = self.queues.scope(&queue.command, &queue.tenant_id);
        self.at(&scope).queue_stats(queue).await
    }

    pub(crate) async fn admin_queues(&self, tenant: Option<Text>) -> Result<Vec<QueueStats>> {
        let scopes = self.registered(tenant.as_deref()).await?;
        let mut stats = Vec::with_capacity(scopes.len());
        for scopes in scopes.chunks(COUNTED_AT_ONCE) {
            let counted = scopes.iter().map(|scope| self.queue_stats(scope.of_queue().clone()));
            for counted in join_all(counted).await {
                stats.push(counted?);
            }
        }
        stats.sort_unstable_by(|one, other| {
            (&one.tenant_id, &one.command).cmp(&(&other.tenant_id, &other.command))
        });
        Ok(stats)
    }

    pub(crate) async fn cleanup_expired(&self, cleanup: Cleanup) -> Result<u32> {
        let tenant = cleanup.tenant_id.as_ref().into_option();
        let (mut left, mut failure) = (cleanup.limit, None);
        for scope in self.registered(tenant.map(|tenant| tenant.as_str())).await? {
            if left == 0 {
                break;
            }
            match self.at(&scope).clean(&Cleanup { limit: left, ..cleanup.clone() }).await {
                Ok(removed) => {
                    self.unpoint(&scope, &removed).await;
                    left = left.saturating_sub(removed.len().try_into().unwrap_or(u32::MAX));
                }
                // Others may work; but nobody waits for every queue of a node that hangs.
                Err(error) if error.kind() == ErrorKind::Timeout => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if left == cleanup.limit => Err(error),
            _ => Ok(cleanup.limit - left),
        }
    }

    pub(crate) async fn list(&self, list: ListTasks) -> Result<Page> {
        if let Some((command, tenant, _)) = place_of(&list) {
            return self.at(&self.queues.scope(command, tenant)).list(list).await;
        }
        let mut page = Page::default();
        if list.limit == 0 {
            return Ok(page);
        }
        let (from, mut inner) = read_cursor(&list.cursor)?;
        let scopes = self.listed(&list).await?;
        let scopes = scopes.into_iter().filter(|scope| *scope.tag() >= *from).collect::<Vec<_>>();
        for (n, scope) in scopes.iter().enumerate() {
            let cursor = if *scope.tag() == *from { std::mem::take(&mut inner) } else { "".into() };
            let left = list.limit - u32::try_from(page.tasks.len()).unwrap_or(list.limit);
            let more = ListTasks { cursor, limit: left, ..list.clone() };
            let part = self.at(scope).list(more).await?;
            page.tasks.extend(part.tasks);
            let is_full = page.tasks.len() >= list.limit as usize;
            if !part.cursor.is_empty() {
                page.cursor = cursor_of(scope, &part.cursor);
            } else if is_full && let Some(next) = scopes.get(n + 1) {
                page.cursor = cursor_of(next, "");
            }
            if !page.cursor.is_empty() {
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// The queues that a list is about.
    async fn listed(&self, list: &ListTasks) -> Result<Vec<Scope>> {
        let tenant = list.tenant_id.as_ref().into_option();
        let mut scopes = self.registered(tenant.map(|tenant| tenant.as_str())).await?;
        if let Some(command) = list.command.as_ref().into_option() {
            let command = codeq_plugin::queue_name(command);
            scopes.retain(|scope| *scope.of_queue().command == *command);
        }
        Ok(scopes)
    }
}

fn cursor_of(scope: &Scope, inner: &str) -> Text {
    record::json(&[scope.tag(), inner]).into()
}

/// Reads the tag of a queue, and the cursor within; both are empty at the beginning.
fn read_cursor(cursor: &str) -> Result<(String, Text)> {
    if cursor.is_empty() {
        return Ok(<_>::default());
    }
    let refused = || Error::invalid_argument(format!("`{cursor}` is not the cursor of a page"));
    let (tag, inner): (String, String) = serde_json::from_str(cursor).map_err(|_| refused())?;
    Scope::tagged(&tag).ok_or_else(refused)?;
    check_cursor(&inner, None)?;
    Ok((tag, inner.into()))
}
