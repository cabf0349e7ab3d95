//! Views that were added to a route that already runs: each is built beside it from the log's beginning, or from where the
//! operator said, as pseudo-route `DATABASE/TABLE`, and joins it in one transaction at equal sequence (SEMANTICS 3.4).
//!
//! ```text
//! route  ──────────────●───── holds at C ─────●──▶ goes on with the view
//! build  ──▶ never beyond the route ──▶ C ──▶ one transaction: build's row gone, view attached, epoch + 1
//! ```

use std::sync::Arc;

use gravity_model::port::view::{BookkeepingRewrite, ViewRow, ViewState};
use gravity_model::{Checkpoint, Epoch, Fault, Sequence};
use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::Route;
use crate::project::apply::Applier;
use crate::project::gauge::RouteGauge;
use crate::project::prepare::RouteSetup;
use crate::project::route::{Orders, RouteTask, is_paused};
use crate::rulebook::RulesVersion;
use crate::supervise::Tasks;

/// A build asks its route to hold at its checkpoint; the route answers with it and waits until `done` is answered or dropped.
pub struct AttachRequest {
    pub hold: oneshot::Sender<Hold>,
}

pub struct Hold {
    /// The route's rows; they do not move while the sender lives.
    pub lanes: Vec<Checkpoint>,
    pub done: oneshot::Sender<()>,
}

/// What a build knows of the route that it will join.
#[derive(Clone)]
pub struct Parent {
    pub gauge: Arc<RouteGauge>,
    pub requests: mpsc::Sender<AttachRequest>,
}

/// The builds of one route.
pub struct Builds {
    registry: Arc<Mutex<Vec<Route>>>,
    cancel: CancellationToken,
    tasks: Tasks,
    running: Arc<Mutex<HashSet<String>>>,
    sender: mpsc::Sender<AttachRequest>,
    requests: mpsc::Receiver<AttachRequest>,
}

impl Builds {
    pub fn new(registry: Arc<Mutex<Vec<Route>>>, cancel: CancellationToken) -> Builds {
        let (sender, requests) = mpsc::channel(8);
        Builds { registry, cancel, tasks: Tasks::default(), running: Arc::default(), sender, requests }
    }

    /// Starts the builds of `tables` that do not run yet. A new one begins under `version`, the route's own: it stands
    /// beside it at every sequence where they may meet.
    pub fn start(&mut self, setup: &RouteSetup, version: &Arc<RulesVersion>, tables: &[String]) {
        for table in tables {
            if !self.running.lock().insert(table.clone()) {
                continue;
            }
            let name = format!("{}/{table}", setup.database);
            let gauge = Arc::new(RouteGauge::new(&name, setup.gauge.kind));
            let paused = is_paused(&setup.log.state(), &name);
            let orders = Arc::new(watch::Sender::new(Orders { paused, ..Orders::default() }));
            let build = setup.of_build(table, version, gauge.clone());
            let parent = Parent { gauge: setup.gauge.clone(), requests: self.sender.clone() };
            let task = RouteTask::build(build, orders.subscribe(), self.cancel.clone(), parent);
            self.registry.lock().push(Route { gauge, orders });
            let (registry, running, table) = (self.registry.clone(), self.running.clone(), table.clone());
            tracing::info!(route = %name, "a view is built beside its route");
            self.tasks.start(format!("route {name}"), async move {
                task.run().await;
                registry.lock().retain(|route| route.gauge.name != name);
                running.lock().remove(&table);
            });
        }
    }

    /// The next build that is in step and asks to join. Cancel-safe.
    pub async fn next_request(&mut self) -> Option<AttachRequest> {
        self.requests.recv().await
    }

    /// The same without waiting, for a route that is never idle.
    pub fn try_next_request(&mut self) -> Option<AttachRequest> {
        self.requests.try_recv().ok()
    }

    pub async fn join(&mut self) {
        self.tasks.join().await;
    }
}

impl Hold {
    /// Where the route stands; a route holds between stretches, so its lanes stand together.
    pub fn sequence(&self) -> Sequence {
        self.lanes.iter().map(|lane| lane.sequence).max().unwrap_or_default()
    }
}

impl AttachRequest {
    /// Holds the route at its checkpoint until the build has joined or given up. True when the views may have changed.
    pub async fn answer(self, lanes: &[Checkpoint], cancel: &CancellationToken) -> bool {
        let apart = lanes.windows(2).any(|pair| pair[0].sequence != pair[1].sequence);
        let (done, joined) = oneshot::channel();
        if apart || self.hold.send(Hold { lanes: lanes.to_vec(), done }).is_err() {
            return false;
        }
        tokio::select! {
            () = cancel.cancelled() => false,
            joined = joined => joined.is_ok(),
        }
    }
}

impl Applier {
    /// Joins the view to its route: both stand at the same sequence.
    pub async fn join_route(&self, lanes: &[Checkpoint]) -> Result<(), Fault> {
        let (Some(route), build) = (lanes.first(), &self.lanes[0]) else { return Ok(()) };
        let views = self.means.store.views().await?;
        let mine = |v: &ViewRow| v.route == build.route && v.log_id == build.log_id;
        let built: Vec<ViewRow> = views.into_iter().filter(mine).collect();
        let identity = self.means.log.identity();
        let raised = |lane: &Checkpoint| Checkpoint {
            epoch: Epoch(lane.epoch.0 + 1),
            fence: identity.fence,
            owner: identity.owner,
            ..lane.clone()
        };
        let rewrite = BookkeepingRewrite {
            expect: lanes.iter().chain(std::iter::once(build)).cloned().collect(),
            delete: vec![(build.route.clone(), build.lane)],
            put: lanes.iter().map(raised).collect(),
            // The claim passes from the build to the route: given up and taken in the same transaction.
            delete_views: built.iter().map(|v| v.table.clone()).collect(),
            put_views: built
                .into_iter()
                .map(|v| ViewRow { state: ViewState::Attached, route: route.route.clone(), ..v })
                .collect(),
        };
        self.means.store.rewrite(rewrite).await
    }
}
