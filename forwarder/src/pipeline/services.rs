//! What the pipeline keeps of each service: its routes, which of its spans are kept in any case.
//!
//! In: processes with their resources, the configuration. Out: one [`Service`] for all processes of the same name and
//! with the same overrides, so that a service of many processes learns its routes once. Kept as long as one of them is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hashbrown::HashMap;
use spantap_config::{Config, KeepSpans, Routes as Configured};

use crate::{
    exchange::Side,
    model::Process,
    observation::{
        Observation,
        route::{RouteId, learned::Learned, names::Names, pattern::Patterns},
        verdict::ErrorType,
    },
    resource::Resource,
    semconv::key,
    trace::keep::Keeper,
};

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    incoming: Patterns,
    outgoing: Patterns,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    learned: Learned,
    keeper: Keeper,
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves routes that were learned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The route of an exchange: by the patterns of its discovery entry, else by the general ones (which `seen` has
    /// been matched with), else what is learned of the paths that it serves.
    pub(super) fn route(&self, seen: &Observation<'_>) -> Option<RouteId> {
        let path = seen.raw_path;
        if seen.exchange.side == Side::Client {
            return self.outgoing.find(path).flatten();
        }
        if !self.incoming.is_empty() {
            if let Some(found) = self.incoming.find(path) {
                return found;
            }
        } else if seen.route.is_some() {
            return seen.route;
        }
        self.state().learned.route(path, seen.status != Some(404))
    }

    /// Whether the span of an exchange is kept whatever the sampler says.
    pub(super) fn keeps(&self, seen: &Observation<'_>) -> bool {
        let failed = seen.error.is_some_and(ErrorType::fails_span);
        self.state().keeper.keeps(seen.end, seen.duration(), failed)
    }
}

/// All services.
#[derive(Debug)]
pub(super) struct Services {
    routes: Configured,
    keep: KeepSpans,
    names: Arc<Names>,
    known: HashMap<String, Weak<Service>>,
    /// Number of services at which those that are over are looked for.
    crowded: usize,
}

impl Services {
    pub(super) fn new(config: &Config, names: Arc<Names>) -> Self {
        Self { routes: config.routes.clone(), keep: config.keep, names, known: HashMap::new(), crowded: 64 }
    }

    /// Whether any span may be kept whatever its sampler says.
    pub(super) fn keeps_any(&self) -> bool {
        self.keep != KeepSpans::default()
    }

    /// The service of `process`.
    pub(super) fn of(&mut self, process: &Process, resource: &Resource) -> Arc<Service> {
        let overrides = &process.overrides;
        let [namespace, name] = [key::SERVICE_NAMESPACE, key::SERVICE_NAME].map(|key| resource.text(key));
        let key = format!("{namespace}\0{name}\0{overrides:?}");
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.crowded {
            self.known.retain(|_, service| service.strong_count() > 0);
            self.crowded = 64.max(2 * self.known.len());
        }
        let service = Arc::new(Service {
            incoming: Patterns::new(&overrides.routes.incoming, &self.names),
            outgoing: Patterns::new(&overrides.routes.outgoing, &self.names),
            state: Mutex::new(State {
                learned: Learned::new(&self.routes, self.names.clone()),
                keeper: Keeper::new(self.keep),
            }),
        });
        self.known.insert(key, Arc::downgrade(&service));
        service
    }

    /// Another configuration from now on. What was learned stays where it still holds.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        (self.routes, self.keep) = (config.routes.clone(), config.keep);
        for service in self.known.values().filter_map(Weak::upgrade) {
            let mut state = service.state();
            state.keeper.set(self.keep);
            if !state.learned.serves(&self.routes) {
                state.learned = Learned::new(&self.routes, self.names.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use spantap_config::{Sampler, ServiceRoutes, Unmatched};

    use super::*;
    use crate::{
        exchange::Exchange,
        model::Overrides,
        observation::{Rules, route::Routes},
        resource::ResourceBuilder,
        sample,
    };

    struct World {
        services: Services,
        rules: Rules,
    }

    fn world(configure: impl FnOnce(&mut Config)) -> World {
        let mut config = sample::config();
        configure(&mut config);
        let names: Arc<Names> = Arc::default();
        let rules = Rules { routes: Routes::configured(&config.routes, names.clone()), ..Rules::default() };
        World { services: Services::new(&config, names), rules }
    }

    impl World {
        fn service(&mut self, process: &Process) -> Arc<Service> {
            let resource = ResourceBuilder::new(&sample::config()).process(process);
            self.services.of(process, &resource)
        }

        fn route(&self, service: &Service, side: Side, path: &'static str, status: u16) -> String {
            let mut exchange: Exchange = sample::exchange(side);
            exchange.request.target = Bytes::from_static(path.as_bytes());
            exchange.response.as_mut().unwrap().status = status;
            let seen = Observation::new(&exchange, sample::clock(), &self.rules);
            service.route(&seen).map_or(String::new(), |id| self.rules.routes.text(id).to_owned())
        }
    }

    #[test]
    fn patterns_then_paths() {
        let mut world = world(|config| {
            config.routes.patterns = vec!["/user/{id}".into()];
            config.routes.unmatched = Unmatched::Heuristic;
        });
        let plain = world.service(&sample::process(1, "shop"));
        for (path, status, want) in [
            ("/user/7", 200, "/user/{id}"),
            ("/cart/7", 200, "/cart/*"),
            ("/cart/8", 404, "/cart/*"),
            ("/x", 404, "/**"),
        ] {
            assert_eq!(world.route(&plain, Side::Server, path, status), want);
        }
        assert_eq!(world.route(&plain, Side::Client, "/user/7", 200), "", "a client has templates of its own only");

        let routes = ServiceRoutes { incoming: vec!["/cart/:n".into()], outgoing: vec!["/api/*".into()] };
        let overrides = Overrides { sampler: Some(Sampler::AlwaysOff), routes };
        let own = world.service(&Process { overrides, ..sample::process(2, "shop") });
        assert_eq!(world.route(&own, Side::Server, "/cart/7", 200), "/cart/:n");
        assert_eq!(
            world.route(&own, Side::Server, "/user/7", 200),
            "/user/*",
            "its own stand in the place of the general"
        );
        assert_eq!(world.route(&own, Side::Client, "/api/a/b", 200), "/api/*");
    }

    #[test]
    fn processes_of_a_service_share_and_services_go() {
        let mut world = world(|config| config.routes.unmatched = Unmatched::Heuristic);
        let (one, two) = (world.service(&sample::process(1, "a")), world.service(&sample::process(2, "a")));
        assert!(Arc::ptr_eq(&one, &two));
        assert!(!Arc::ptr_eq(&one, &world.service(&sample::process(3, "b"))));
        for n in 0..1000 {
            world.service(&sample::process(n, &format!("p{n}")));
        }
        assert!(world.services.known.len() <= 64, "{}", world.services.known.len());
        assert!(Arc::ptr_eq(&one, &world.service(&sample::process(4, "a"))), "one that is used stays");
    }

    #[test]
    fn a_new_configuration_applies_and_keeps_what_holds() {
        let mut world = world(|config| config.routes.unmatched = Unmatched::Heuristic);
        let service = world.service(&sample::process(1, "a"));
        assert_eq!(world.route(&service, Side::Server, "/cart/7", 200), "/cart/*");
        let mut config = sample::config();
        (config.routes.unmatched, config.keep.errors) = (Unmatched::Heuristic, true);
        world.services.reconfigure(&config);
        assert_eq!(world.route(&service, Side::Server, "/cart/9", 404), "/cart/*", "learned before");
        assert!(world.services.keeps_any());
        config.routes.unmatched = Unmatched::Wildcard;
        world.services.reconfigure(&config);
        assert_eq!(world.route(&service, Side::Server, "/cart/7", 200), "/**");
    }
}
