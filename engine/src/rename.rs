//! A database entry under a new name (`"was"`, SEMANTICS 3.5): what log and database keep of it follows.
//!
//! First the log's live state, then the database in one transaction; each step finds what an earlier attempt left. A retry or
//! skip that the old route had recorded and not come to is not carried out under the new name: the operator asks again.

use gravity_log::{Batch, EventLog, LogError};
use gravity_model::port::view::{BookkeepingRewrite, ViewRow};
use gravity_model::{Checkpoint, Fault, failpoint};

use crate::control;
use crate::project::prepare::RouteSetup;

/// The new name of a route, of a view under construction or of a subscription; `None` for those of other entries.
fn renamed(route: &str, was: &str, name: &str) -> Option<String> {
    if route == was {
        return Some(name.to_owned());
    }
    if let Some(table) = route.strip_prefix(was).and_then(|rest| rest.strip_prefix('/')) {
        return Some(format!("{name}/{table}"));
    }
    let exporter = route.strip_suffix(was)?.strip_suffix('@')?;
    Some(control::subscription_key(exporter, name))
}

/// Moves live state from the routes and subscriptions of entry `was` to those of `name`; durable when this returns.
pub async fn carry_over(log: &dyn EventLog, was: &str, name: &str) -> Result<(), LogError> {
    let mut batch = Batch::new();
    for entry in log.state() {
        let key = match entry.name.as_str() {
            control::PARKED | control::RELEASED | control::MISSED => entry
                .key
                .rsplit_once('#')
                .and_then(|(route, number)| Some(format!("{}#{number}", renamed(route, was, name)?))),
            control::CURSOR | control::PAUSED | control::SETTLED | control::TYPES_RESOLVED | control::ADOPTED => {
                renamed(&entry.key, was, name)
            }
            _ => None,
        };
        let Some(key) = key else { continue };
        let Ok(mut payload) = serde_json::from_slice::<serde_json::Value>(&entry.payload) else { continue };
        let route = payload.get("route").and_then(|route| renamed(route.as_str()?, was, name));
        if let Some(route) = route {
            payload["route"] = route.into();
        }
        control::put(&mut batch, &entry.name, &key, &payload, None);
        control::end(&mut batch, &entry.name, &entry.key);
    }
    if batch.is_empty() {
        return Ok(());
    }
    tracing::info!(was, name, records = batch.len() / 2, "the database entry has a new name");
    crate::append::durable(log, batch).await?.durable().await?;
    failpoint::hit("rename.carried");
    Ok(())
}

impl RouteSetup {
    /// Takes over the checkpoints and views that the database keeps under the entry's earlier name.
    pub(crate) async fn take_over(&self, was: &str) -> Result<(), Fault> {
        let mut rows = self.store.checkpoints(was).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let log_id = self.log.identity().log_id;
        let views = self.store.views().await?.into_iter().filter(|v| v.log_id == log_id);
        let views: Vec<(String, ViewRow)> =
            views.filter_map(|v| Some((renamed(&v.route, was, self.name())?, v))).collect();
        for (_, building) in views.iter().filter(|(_, v)| v.route != was) {
            rows.extend(self.store.checkpoints(&building.route).await?);
        }
        for row in &rows {
            self.prove_ours(row).await?;
        }
        let identity = self.log.identity();
        let moved = |row: &Checkpoint| Checkpoint {
            route: renamed(&row.route, was, self.name()).unwrap_or_else(|| row.route.clone()),
            fence: identity.fence,
            owner: identity.owner,
            ..row.clone()
        };
        let rewrite = BookkeepingRewrite {
            delete: rows.iter().map(|row| (row.route.clone(), row.lane)).collect(),
            put: rows.iter().map(moved).collect(),
            delete_views: views.iter().map(|(_, view)| view.table.clone()).collect(),
            put_views: views.into_iter().map(|(route, view)| ViewRow { route, ..view }).collect(),
            expect: rows,
        };
        self.store.rewrite(rewrite).await?;
        failpoint::hit("rename.taken_over");
        tracing::info!(route = self.name(), was, "goes on from the checkpoint of its earlier name");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_entry_and_no_other() {
        let new = |route| renamed(route, "db1", "main");
        assert_eq!(new("db1").as_deref(), Some("main"));
        assert_eq!(new("db1/users").as_deref(), Some("main/users"));
        assert_eq!(new("out@db1").as_deref(), Some("out@main"));
        for other in ["db10", "db", "xdb1", "db10/users", "out@xdb1", "db1@out"] {
            assert_eq!(new(other), None, "{other}");
        }
    }
}
