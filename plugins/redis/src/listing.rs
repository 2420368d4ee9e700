//! Paging through tasks.
//!
//! The tasks in one place of one queue come in the order of that place: ready ones as they would be
//! claimed, delayed ones by when they come due; leased and dead-lettered ones in the order of their
//! set, which is none but stays the same. All others come by when their retention ends, so a task
//! that changes moves to the end and is seen there, and none is left out.

use codeq_plugin::{
    Boxed, Instant, ListTasks, Location, Optional, Page, Placed, Result, Task, TaskStatus, Text,
    queue_name,
};

use crate::{backend::Backend, record, reply::Reply, scripts};

/// How many tasks are looked at in one round trip.
const MOST_LOOKED_AT: u32 = 1000;

impl Backend {
    pub(crate) async fn list(&self, list: ListTasks) -> Result<Page> {
        self.page(&list).await
    }

    pub(crate) async fn page(&self, list: &ListTasks) -> Result<Page> {
        let mut page = Page { cursor: list.cursor.clone(), ..Page::default() };
        if list.limit == 0 {
            return Ok(Page::default());
        }
        check_cursor(&list.cursor, place_of(list).map(|(_, _, place)| place))?;
        // A page with nothing on it would look like the last one.
        loop {
            let left = list.limit - u32::try_from(page.tasks.len()).unwrap_or(list.limit);
            let looked_at = left.min(MOST_LOOKED_AT);
            let call = self.call(&scripts::LIST);
            let call = match place_of(list) {
                Some((command, tenant, place)) => {
                    call.text("queue").text(&queue_name(command)).text(tenant).text(place.as_str())
                }
                None => call.text("all"),
            };
            let call = call.text(&page.cursor).number(looked_at);
            let mut reply = self.run(call).await?;
            page.cursor = reply.text()?.into();
            while !reply.is_empty() {
                if let Some(placed) = read_placed(&mut reply, list)? {
                    page.tasks.push(placed);
                }
            }
            if page.cursor.is_empty() || !page.tasks.is_empty() {
                return Ok(page);
            }
        }
    }
}

/// The one place of one queue that a list is about, if it is about one.
pub(crate) fn place_of(list: &ListTasks) -> Option<(&Text, &Text, Location)> {
    let command = list.command.as_ref().into_option()?;
    let tenant = list.tenant_id.as_ref().into_option()?;
    let place = match (list.location.into_option(), list.status.into_option()) {
        (Some(Location::None), _) => return None,
        (Some(place), _) => place,
        (None, Some(TaskStatus::InProgress)) => Location::InprogSet,
        _ => return None,
    };
    Some((command, tenant, place))
}

fn read_placed(reply: &mut Reply, list: &ListTasks) -> Result<Option<Placed>> {
    let (json, place, at) = (reply.bytes()?, reply.text()?, reply.instant_if_any()?);
    let Ok(mut task) = record::read_task("", &json) else { return Ok(None) };
    // Old records do not say where they are; the place they were found in does.
    if let Some(found_in) = location(&place) {
        task.last_known_location = found_in;
    }
    if !is_wanted(&task, list) {
        return Ok(None);
    }
    let mut visible_at = Instant::EPOCH;
    if let Some(at) = at {
        if task.status == TaskStatus::InProgress {
            task.lease_until = Optional::RSome(at);
        } else {
            visible_at = at;
        }
    }
    Ok(Some(Placed { task, visible_at }))
}

fn is_wanted(task: &Boxed<Task>, list: &ListTasks) -> bool {
    let of_tenant = list.tenant_id.as_ref().into_option();
    let of_command = list.command.as_ref().into_option();
    of_tenant.is_none_or(|tenant| *tenant == task.tenant_id)
        && of_command.is_none_or(|command| queue_name(command) == queue_name(&task.command))
        && list.status.into_option().is_none_or(|status| status == task.status)
        && list.location.into_option().is_none_or(|place| place == task.last_known_location)
}

fn location(name: &str) -> Option<Location> {
    let places =
        [Location::PendingList, Location::DelayedZset, Location::InprogSet, Location::DlqSet];
    places.into_iter().find(|place| place.as_str() == name)
}

/// A cursor is what the script for that place made; no other gets to it.
pub(crate) fn check_cursor(cursor: &str, place: Option<Location>) -> Result<()> {
    let is_number = |text: &String| text.parse::<f64>().is_ok_and(f64::is_finite);
    let parts: Option<Vec<String>> = serde_json::from_str(cursor).ok();
    let fits = parts.is_some_and(|parts| match place {
        // A cursor of the server's: a number, or as KVRocks has it.
        Some(Location::InprogSet | Location::DlqSet) => {
            parts.first().is_some_and(|cursor| is_number(cursor) || cursor.starts_with('_'))
        }
        _ => parts.len() == 2 && is_number(&parts[0]),
    });
    if cursor.is_empty() || fits {
        return Ok(());
    }
    Err(codeq_plugin::Error::invalid_argument(format!("`{cursor}` is not the cursor of a page")))
}
