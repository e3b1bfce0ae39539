//! What the kernel side tells of Node.
//!
//! In: the connection that a request came over, and when its first byte was received. Out: that request, if it is the only one
//! of its connection and was not answered before the other was sent.
//!
//! Node runs the handlers of pipelined requests side by side, and of these nothing tells which one is meant: they are not linked.
//! Nor is anything that is sent after the answer: by then a callback may be there for anybody (pools, caches, timers).

use super::{Runtimes, Served, Told};
use crate::{
    exchange::Opened,
    link::{Method, node::NodeRef},
};

impl Served {
    /// The request that is served, if it is certain.
    pub(super) fn at_node(&self, told: &Told) -> Option<(NodeRef, Method)> {
        let came_before = |node: &NodeRef| {
            let node = node.borrow();
            node.time <= told.time && node.process.id == told.process
        };
        if self.answered.iter().any(|(_, at)| *at >= told.handler && *at < told.time) {
            return None;
        }
        let just_answered = self.answered.iter().filter(|(_, at)| *at >= told.time).map(|(node, _)| node);
        let mut served = self.open.iter().chain(just_answered).filter(|node| came_before(node));
        let one = served.next()?;
        let is_it = served.next().is_none() && one.borrow().time <= told.handler;
        is_it.then(|| (one.clone(), Method::NodeAsync))
    }
}

impl Runtimes {
    /// No reaction to a promise was seen in this process: it uses none, or runs copies of the code that is watched.
    pub(super) fn is_blind(&mut self, opened: &Opened<'_>) {
        if self.blind.mark(opened.process.id) {
            tracing::info!(
                pid = opened.process.pid,
                executable = opened.process.executable,
                "no promise of this program was seen to be settled: until one is, its requests are not linked"
            );
        }
    }
}
