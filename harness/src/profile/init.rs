//! An example of a profile.

use super::role::Role;

/// A profile to begin with. What is commented out begins with `#` and no blank, and is valid as well.
pub(super) fn text(role: Role) -> String {
    let about = role.description();
    let section = match role {
        Role::Logging => LOGGING,
        Role::ReverseProxy => REVERSE_PROXY,
        Role::ConfigReload => CONFIG_RELOAD,
        Role::Generic => "",
    };
    let claims: Vec<String> = role
        .claims()
        .into_iter()
        .map(|claim| claim_line(&claim.to_string(), &claim.description()))
        .collect();
    let placeholders: Vec<String> = role
        .placeholders()
        .iter()
        .map(|(name, meaning)| format!("#   {{{{{name}}}}}  {meaning}\n"))
        .collect();
    let claims = claims.concat();
    let placeholders = match placeholders.is_empty() {
        true => String::new(),
        false => format!("{PLACEHOLDERS}{}", placeholders.concat()),
    };
    format!("{HEAD}\n# {about}.\nrole: {role}\n{section}\n{COMMON}{CLAIMS}{claims}{placeholders}")
}

fn claim_line(claim: &str, description: &str) -> String {
    format!("#- {claim:<23} # {description}.\n")
}

const HEAD: &str = "\
# What a sidecar's image is and does. Remove the # before a field to use it.
";

const LOGGING: &str = "
logging:
  # Where it finds main's log files.
  mount: /logs
  # Where it delivers the lines: stdout, tcp, http, syslog, or {file: /out/all.log}.
  delivers: stdout
";

const REVERSE_PROXY: &str = "
reverseProxy:
  # The port at which it accepts requests.
  listen: 8080
  # What main's preStop hook gets, so that it drains.
  #drain: {path: /drain, port: 8081}
";

const CONFIG_RELOAD: &str = "
configReload:
  # Where it finds main's configuration.
  mount: /config
  # How it makes main use it: http, {signal: SIGHUP, process: main}, or {file: /out/config.yaml}.
  reloads: http
";

const COMMON: &str = "\
# The image, unless the command line names it.
#image: example.com/sidecar:1.0

# What it runs, in place of the image's ENTRYPOINT and CMD.
#command: [/sidecar]
#args: [--config, /etc/sidecar/sidecar.yaml]

# Environment variables.
#env: {LEVEL: info}

# Files that it needs, read-only.
#files:
#  /etc/sidecar/sidecar.yaml: |
#    level: info

# The same files with a wrong text: with it, the image must end with another status than 0 and say why.
#badFiles:
#  /etc/sidecar/sidecar.yaml: \"level: [\"

# The TCP ports that it opens; by default those of the image's EXPOSE.
#ports: [8080]

# How to see that it works: {http: {path: /health, port: 8080}}, {tcp: 8080} or {exec: [/check]}.
#health: {http: {path: /health, port: 8080}}

# The number of the user that it runs as; by default the image's USER.
#user: 10001

# The Linux capabilities that it needs; it gets no others.
#capabilities: [NET_BIND_SERVICE]

# The folders that it must be able to write to.
#writable: [/tmp]

# What it may use at most.
#resources: {cpu: 200m, memory: 64Mi}

# The signal that makes it end; by default the image's STOPSIGNAL.
#stopSignal: SIGTERM

# How long it may take to end: 500ms, 10s or 1m.
#grace: 10s

# How long it may take from its start until it is ready.
#startup: 60s

# Whether it needs a token of the Kubernetes API, which it never gets.
#kubernetesApi: false
";

const CLAIMS: &str = "
# What it can do beyond what its role asks of each image. Only what is claimed is checked.
#claims:
";

const PLACEHOLDERS: &str = "
# Placeholders, for command, args, env, files, badFiles and the path of health.
# {{{{ stands for two braces. Other double braces stay as they are, such as {{ .Name }}.
";
