//! Paging through tasks.
//!
//! The order is by tenant, command, place and position in that place. A task that does not change
//! keeps its position, so it is on exactly one page.

use std::ops::Bound::{Included, Unbounded};

use codeq_plugin::{
    Error, Instant, List, ListTasks, Page, Placed, Result, Text, queue_name, rules::Placement,
};

use crate::{
    queue::{Place, Position},
    tasks::{Entry, Tasks},
};

/// Where a page ended: a queue, a place and a position in it.
type Cursor = (String, String, usize, i64, u64);

impl Tasks {
    pub(crate) fn list(&self, list: &ListTasks) -> Result<Page> {
        let after = read_cursor(&list.cursor)?;
        let mut tasks = List::new();
        let mut last = None;
        if list.limit == 0 {
            return Ok(Page::default());
        }
        for (tenant, queue) in self.queues_from(list, after.as_ref()) {
            // The cursor counts in its own queue only.
            let resume = after.as_ref().filter(|(at_tenant, name, ..)| {
                at_tenant == tenant && *name == self.queues[queue].name.as_str()
            });
            for place in Place::ALL.into_iter().filter(|place| wanted(list, *place)) {
                let skip = match resume {
                    Some((_, _, index, ..)) if (place as usize) < *index => continue,
                    Some((_, _, index, rank, arrival)) if place as usize == *index => {
                        Some(Position { rank: *rank, arrival: *arrival })
                    }
                    _ => None,
                };
                for (position, slot) in self.queues[queue].iter_after(place, skip) {
                    if tasks.len() == list.limit as usize
                        && let Some((tenant, queue, place, position)) = last
                    {
                        let name = self.queues[queue].name.as_str();
                        let cursor = write_cursor(tenant, name, place, position);
                        return Ok(Page { tasks, cursor });
                    }
                    tasks.push(placed(&self.entries[slot]));
                    last = Some((tenant, queue, place, position));
                }
            }
        }
        Ok(Page { tasks, cursor: Text::new() })
    }

    /// The queues that the list is about, in order, from that of the cursor on.
    fn queues_from(
        &self,
        list: &ListTasks,
        after: Option<&Cursor>,
    ) -> impl Iterator<Item = (&str, usize)> {
        let (from_tenant, from_name) = match after {
            Some((tenant, name, ..)) => (tenant.as_str(), name.as_str()),
            None => ("", ""),
        };
        let (from_tenant, from_name) = (Text::from(from_tenant), Text::from(from_name));
        let tenant_wanted = list.tenant_id.as_ref().into_option().cloned();
        let name_wanted =
            list.command.as_ref().into_option().map(|command| Text::from(&*queue_name(command)));
        // A tenant that is asked for is the only one to look at.
        let tenants = match &tenant_wanted {
            Some(wanted) if *wanted >= from_tenant => {
                (Included(wanted.clone()), Included(wanted.clone()))
            }
            _ => (Included(from_tenant.clone()), Unbounded),
        };
        self.tenant_names
            .range(tenants)
            .filter(move |(name, _)| tenant_wanted.as_ref().is_none_or(|wanted| wanted == *name))
            .flat_map(move |(name, id)| {
                let from = if *name == from_tenant { from_name.clone() } else { Text::new() };
                self.tenants[*id]
                    .queues
                    .range((Included(from), Unbounded))
                    .map(move |(queue, id)| (name, queue, *id))
            })
            .filter(move |(_, queue, _)| name_wanted.as_ref().is_none_or(|wanted| wanted == *queue))
            .map(|(tenant, _, id)| (tenant.as_str(), id))
    }
}

fn wanted(list: &ListTasks, place: Place) -> bool {
    list.status.into_option().is_none_or(|status| place.has_status(status))
        && list.location.into_option().is_none_or(|location| place.is_location(location))
}

fn placed(entry: &Entry) -> Placed {
    let visible_at = match entry.placement {
        Placement::Delayed(at) => at,
        _ => Instant::EPOCH,
    };
    Placed { task: entry.task.clone(), visible_at }
}

fn write_cursor(tenant: &str, queue: &str, place: Place, position: Position) -> Text {
    let cursor = (tenant, queue, place as usize, position.rank, position.arrival);
    serde_json::to_string(&cursor).unwrap_or_default().into()
}

fn read_cursor(cursor: &str) -> Result<Option<Cursor>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(cursor).map(Some).map_err(|error| {
        Error::invalid_argument(format!("`{cursor}` is not the cursor of a page")).because(&error)
    })
}
