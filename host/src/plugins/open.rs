//! Opening a store with a plugin.

use std::{collections::BTreeMap, fmt, path::Path};

use codeq_plugin::{
    Context, Error, ErrorKind, Extensions,
    boundary::{InstanceBox, PluginModuleRef},
    manifest::Manifest,
    rules::Rules,
};
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;
use thiserror::Error as ThisError;

use super::{Found, Plugins, Refusal, RefusalKind, inspect, load, log};
use crate::{
    nearest::nearest,
    store::{Store, bounded},
};

/// What a store is told by its host.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The rules of the queues.
    pub rules: Rules,
    /// The IANA name of the zone in which times are shown to people.
    pub timezone: String,
    /// At most how many tasks one claim or repair moves on its way.
    pub repair_limit: u32,
    /// The SHA-256 that a plugin's file must have, in hexadecimal, by the plugin's name.
    pub digests: BTreeMap<String, String>,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            rules: Rules::default(),
            timezone: "UTC".into(),
            repair_limit: 200,
            digests: BTreeMap::new(),
        }
    }
}

/// Why there is no store.
#[non_exhaustive]
#[derive(Debug, ThisError)]
pub enum OpenError {
    /// There is no plugin of that name.
    #[error("{}", UnknownProvider { name, plugins })]
    UnknownProvider {
        /// The name that was asked for.
        name: String,
        /// What there is, and where it was looked for.
        plugins: Box<Plugins>,
    },
    /// The plugin's library was refused when it was to be loaded.
    #[error("plugin `{name}` cannot be loaded ({}): {refusal}", refusal.code())]
    Refused {
        /// The plugin.
        name: String,
        /// Why.
        #[source]
        refusal: Box<Refusal>,
    },
    /// The configuration does not fit the plugin's schema.
    #[error("the configuration of plugin `{name}` is wrong: {}", problems.join("; "))]
    Configuration {
        /// The plugin.
        name: String,
        /// What is wrong, each with its key.
        problems: Vec<String>,
    },
    /// The plugin could not open the store.
    #[error("plugin `{name}` could not open its store: {error}")]
    Plugin {
        /// The plugin.
        name: String,
        /// What it says.
        #[source]
        error: Error,
    },
}

impl OpenError {
    /// A code that stays the same from version to version.
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::UnknownProvider { .. } => "P-UNKNOWN",
            OpenError::Refused { refusal, .. } => refusal.code(),
            OpenError::Configuration { .. } => "P-CONFIG",
            OpenError::Plugin { .. } => "P-OPEN",
        }
    }

    /// Whether the configuration is to blame, rather than the plugin or its backend.
    pub fn is_configuration(&self) -> bool {
        match self {
            OpenError::UnknownProvider { .. } | OpenError::Configuration { .. } => true,
            OpenError::Plugin { error, .. } => error.kind() == ErrorKind::InvalidConfig,
            OpenError::Refused { .. } => false,
        }
    }
}

impl Plugins {
    /// Opens a store with the plugin called `name`.
    ///
    /// The same plugin can be opened any number of times: each store is one of its own.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(
        self,
        name: &str,
        config: &Value,
        options: &OpenOptions,
    ) -> Result<Store, OpenError> {
        let (found, contents) = self.checked(name, config, options)?;
        let module = load_checked(&found, &contents)?;
        let instance = open_instance(&contents.manifest, module, config, options).await?;
        Ok(Store::new(contents.manifest, instance))
    }

    /// Checks whether the plugin called `name` could open a store, as far as that can be told without
    /// running any of it.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn check(
        self,
        name: &str,
        config: &Value,
        options: &OpenOptions,
    ) -> Result<Found, OpenError> {
        self.checked(name, config, options).map(|(found, _)| found)
    }

    /// As [`Plugins::check`], with the bytes that were checked.
    pub(super) fn checked(
        self,
        name: &str,
        config: &Value,
        options: &OpenOptions,
    ) -> Result<(Found, inspect::Contents), OpenError> {
        match self.get(name) {
            Some(found) => check(found, config, options).map(|contents| (found.clone(), contents)),
            None => Err(OpenError::UnknownProvider { name: name.into(), plugins: Box::new(self) }),
        }
    }
}

/// Loads what was checked.
pub(super) fn load_checked(
    found: &Found,
    contents: &inspect::Contents,
) -> Result<PluginModuleRef, OpenError> {
    load::load(contents).map_err(|kind| refused(found, kind))
}

/// A plugin's library in this process, to open many stores with.
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    module: PluginModuleRef,
}

impl Loaded {
    /// Loads a library.
    pub(crate) fn load(path: &Path) -> Result<Loaded, Refusal> {
        let contents = inspect::read(path)?;
        let module = load::load(&contents).map_err(|kind| Refusal::new(path, kind))?;
        Ok(Loaded { manifest: contents.manifest, module })
    }

    /// Opens a store without a handle on it.
    pub(crate) async fn open(
        &self,
        config: &Value,
        options: &OpenOptions,
    ) -> Result<InstanceBox, OpenError> {
        let name = || self.manifest.name.clone();
        let problems = check_config(&self.manifest.config_schema, config)
            .map_err(|kind| refused_in_memory(name(), kind))?;
        if !problems.is_empty() {
            return Err(OpenError::Configuration { name: name(), problems });
        }
        open_instance(&self.manifest, self.module, config, options).await
    }
}

fn refused_in_memory(name: String, kind: RefusalKind) -> OpenError {
    let refusal = Box::new(Refusal::new(Path::new(&name), kind));
    OpenError::Refused { name, refusal }
}

async fn open_instance(
    manifest: &Manifest,
    module: PluginModuleRef,
    config: &Value,
    options: &OpenOptions,
) -> Result<InstanceBox, OpenError> {
    let name = manifest.name.clone();
    let opening = module.open()(config.to_string().into(), context(&name, options));
    match bounded(opening).await {
        Ok(instance) => Ok(instance),
        Err(error) => Err(OpenError::Plugin { name, error }),
    }
}

/// What a plugin is told by its host.
pub(super) fn context(name: &str, options: &OpenOptions) -> Context {
    Context {
        provider: name.into(),
        rules: options.rules,
        timezone: options.timezone.as_str().into(),
        repair_limit: options.repair_limit,
        log: log::sink(),
        extensions: Extensions::new(),
    }
}

/// All that can be checked without running any of the plugin's code.
fn check(
    found: &Found,
    config: &Value,
    options: &OpenOptions,
) -> Result<inspect::Contents, OpenError> {
    let name = found.manifest.name.clone();
    let contents = inspect::read(&found.path)
        .map_err(|refusal| OpenError::Refused { name: name.clone(), refusal: Box::new(refusal) })?;
    check_digest(&contents, options).map_err(|kind| refused(found, kind))?;
    let problems = check_config(&contents.manifest.config_schema, config)
        .map_err(|kind| refused(found, kind))?;
    if problems.is_empty() {
        Ok(contents)
    } else {
        Err(OpenError::Configuration { name, problems })
    }
}

fn refused(found: &Found, kind: RefusalKind) -> OpenError {
    let refusal = Box::new(Refusal::new(&found.path, kind));
    OpenError::Refused { name: found.manifest.name.clone(), refusal }
}

fn check_digest(contents: &inspect::Contents, options: &OpenOptions) -> Result<(), RefusalKind> {
    use std::fmt::Write;
    let Some(pinned) = options.digests.get(&contents.manifest.name) else {
        return Ok(());
    };
    let found = contents.digest.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let wanted = pinned.strip_prefix("sha256:").unwrap_or(pinned);
    if wanted.eq_ignore_ascii_case(&found) {
        Ok(())
    } else {
        Err(RefusalKind::OtherDigest { found, pinned: pinned.clone() })
    }
}

/// What is wrong with a configuration, each problem with the key it is about.
fn check_config(schema: &Value, config: &Value) -> Result<Vec<String>, RefusalKind> {
    let validator = jsonschema::validator_for(schema)
        .map_err(|error| RefusalKind::BadManifest(format!("its configuration schema: {error}")))?;
    Ok(validator.iter_errors(config).map(|error| explain(schema, &error)).collect())
}

fn explain(schema: &Value, error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
    let key = if place.is_empty() {
        "persistenceConfig".into()
    } else {
        format!("persistenceConfig.{place}")
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known: Vec<&str> = schema["properties"]
                .as_object()
                .map(|properties| properties.keys().map(String::as_str).collect())
                .unwrap_or_default();
            let unknown =
                unexpected.iter().map(|name| match nearest(name, known.iter().copied()) {
                    Some(near) => format!("`{key}.{name}` is unknown; did you mean `{near}`?"),
                    None if known.is_empty() => {
                        format!("`{key}.{name}` is unknown: it has no settings")
                    }
                    None => {
                        format!("`{key}.{name}` is unknown; known are {}", known.join(", "))
                    }
                });
            unknown.collect::<Vec<_>>().join("; ")
        }
        _ => format!("`{key}`: {}", error.masked()),
    }
}

/// The message about a provider that is not there.
struct UnknownProvider<'a> {
    name: &'a str,
    plugins: &'a Plugins,
}

impl fmt::Display for UnknownProvider<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plugins { dirs, found, refused, hidden: _ } = self.plugins;
        write!(f, "there is no persistence plugin called `{}`", self.name)?;
        let names = found.iter().map(|found| found.manifest.name.as_str());
        if let Some(near) = nearest(self.name, names) {
            write!(f, "; did you mean `{near}`?")?;
        }
        if found.is_empty() {
            write!(f, "\n  found: none")?;
        }
        for Found { path, manifest, .. } in found {
            write!(f, "\n  found: {} ({})", manifest.name, path.display())?;
        }
        for refusal in refused {
            write!(f, "\n  refused: {} {refusal}", refusal.code())?;
        }
        for dir in dirs {
            let missing = if dir.is_dir() { "" } else { " (does not exist)" };
            write!(f, "\n  searched: {}{missing}", dir.display())?;
        }
        write!(f, "\n  set persistenceProvider to one that is there, or pluginDirs to where it is")
    }
}
