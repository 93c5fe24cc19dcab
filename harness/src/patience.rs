//! How long the harness waits, all in one place.
//!
//! Each figure is a bound on waiting, never a pause: whatever is awaited is taken as soon as it is there. A time in which the API server or
//! this machine stood still is not counted (see `pod/pulse.rs`).

use std::time::Duration;

/// From a Pod's creation until a node takes it, or something says that one is coming. The Cluster Autoscaler takes up to a minute to ask for a node.
pub const SCHEDULED: Duration = Duration::from_secs(60);

/// For a node that is coming. The Cluster Autoscaler and Karpenter give up one that has not joined after 15 minutes, and try another way.
pub const NODE: Duration = Duration::from_secs(1200);

/// From the moment at which a node takes a Pod until all its containers are ready, without the time that its images take. A warm node needs a second;
/// this leaves room for a busy one.
pub const READY: Duration = Duration::from_secs(180);

/// For a fault that may heal by itself, such as a failed image pull or a container that could not be created.
pub const HEALING: Duration = Duration::from_secs(60);

/// For something that a running Pod does on its own: a line in a log, an answer, a restart.
pub const REACTION: Duration = Duration::from_secs(45);

/// For what a log shipper delivers: it may collect lines for a while, and have many to deliver.
pub const DELIVERY: Duration = Duration::from_secs(60);

/// How long an image that has started must go on before it counts as one that stays.
pub const STAYS: Duration = Duration::from_secs(2);

/// For the first process of a container that is ready to have a handler for a signal.
pub const HANDLER: Duration = Duration::from_secs(15);

/// For a proxy to find out that what it passes requests on to is back, and for a reloader that main listens. Many try again after 10 s at the latest.
pub const RECOVERY: Duration = Duration::from_secs(15);

/// For a new address of a name to be used: a cluster's DNS may let others keep the last one for 30 s, and remembers it itself as long.
pub const NAMES: Duration = Duration::from_secs(90);

/// How long an image without work is watched.
pub const IDLE: Duration = Duration::from_secs(3);

/// For a container that ended to be running and ready again. With the kubelet's default settings the second restart is held back for
/// 10 s and the third for 20 s.
pub const RESTART: Duration = Duration::from_secs(90);

/// For a Pod's status to report that a container has started again.
pub const STATUS: Duration = Duration::from_secs(30);

/// For a changed ConfigMap or Secret to reach a container. The kubelet's default settings need its sync period and its cache's lifetime,
/// about two minutes at worst.
pub const PROJECTION: Duration = Duration::from_secs(180);

/// From a Pod's deletion until it is gone, beyond its own grace period.
pub const DELETION: Duration = Duration::from_secs(90);

/// For one life of a Pod: from its creation to the outcome of the checks that look at it, not counting the time for which the cluster was waited for that
/// made it a node or pulled its images. With that it is below the limit that nextest has for a test, so that there is time left for evidence and clean-up.
pub const LIFE: Duration = Duration::from_secs(480);

/// For evidence to be saved.
pub const EVIDENCE: Duration = Duration::from_secs(60);

/// For namespaces to go once nobody needs them any more.
pub const CLEAN_UP: Duration = Duration::from_secs(120);

/// For a connection to the API server. A cluster that is dead may leave an address that nobody answers.
pub const CONNECT: Duration = Duration::from_secs(10);

/// For one request to the API server, and for it to answer again after a silence.
pub const API: Duration = Duration::from_secs(30);

/// A request to the API server that takes longer than this, or a pause of this process that long, means that something stood still.
pub const STANDSTILL: Duration = Duration::from_secs(2);

/// Between two looks at whether the API server answers.
pub const PULSE: Duration = Duration::from_secs(1);

/// For one HTTP request that an agent sends. Longer than a node may stand still.
pub const CALL: Duration = Duration::from_secs(60);

/// For one of several attempts at a request of which the first ones may fail. A resolver tries its next name server after 5 s.
pub const ATTEMPT: Duration = Duration::from_secs(12);

/// For one HTTP request to a container through a forwarded port, or one command in it. The agent may be asked for a call by it, and has
/// to answer after that.
pub const ROUND_TRIP: Duration = Duration::from_secs(75);

/// Between two looks at something that cannot be watched: an HTTP answer, a cluster that starts.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Between two attempts to reach an API server or kubelet that does not answer, at most.
pub const RECONNECT: Duration = Duration::from_secs(1);

/// For one command of the container engine or kind that builds and copies nothing. A busy machine has needed a minute to start a container.
pub const ENGINE: Duration = Duration::from_secs(180);

/// For kind to make a cluster whose node image is there; it takes 15 s.
pub const CREATE: Duration = Duration::from_secs(600);

/// For those who use a cluster that has to be made anew.
pub const IN_USE: Duration = Duration::from_secs(1800);

/// For the registry of the published node images to answer; there may be none.
pub const REGISTRY: Duration = Duration::from_secs(5);

/// For images to be pulled, pushed or loaded, by a node too.
pub const TRANSFER: Duration = Duration::from_secs(900);

/// For images to be built from packages, on a slow connection too.
pub const BUILD: Duration = Duration::from_secs(3600);
