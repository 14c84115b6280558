//! Opening the data plane: maps, programs, attachment.

use std::path::PathBuf;

use aya::EbpfLoader;
use aya::programs::CgroupSockAddr;
use ebpf_types::maps as capacity;
use thiserror::Error;
use tracing::info;

use crate::hooks::{HOOKS, OBJECT};
use crate::link::{Cgroup, LinkError, LinkState};
use crate::map_spec::{Check, MapMismatch, SpecError, check, check_layout, specs};
use crate::maps::{MapError, Maps};
use crate::pin::{PinDir, PinError, maps_dir};

/// Where the data plane lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory on a bpffs for maps and links; made if absent. One agent owns it.
    pub pin_dir: PathBuf,
    /// The cgroup (version 2) whose processes are balanced, with the cgroups below it and no other.
    pub cgroup: PathBuf,
    /// How much the maps hold.
    pub capacities: Capacities,
}

/// How many entries each map holds. Pinned maps keep theirs: another number later is a [`MapMismatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Frontends.
    pub services: u32,
    /// Slots over all services; 8 bytes each, allocated at once.
    pub slots: u32,
    /// Backends.
    pub backends: u32,
    /// Pairs of socket and backend whose frontend is remembered; about 100 bytes each, allocated at once.
    pub reverse: u32,
    /// Prefixes with an identity.
    pub ipcache: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            services: capacity::SERVICES_CAPACITY as u32,
            slots: capacity::SLOTS_CAPACITY as u32,
            backends: capacity::BACKENDS_CAPACITY as u32,
            reverse: capacity::REVERSE_CAPACITY as u32,
            ipcache: capacity::IPCACHE_CAPACITY as u32,
        }
    }
}

/// The socket load balancer in the kernel: its maps, and its programs attached to one cgroup.
///
/// Dropping it leaves everything in place; [`cleanup`](crate::cleanup) takes it away.
#[derive(Debug)]
pub struct DataPlane {
    maps: Maps,
    links: Vec<LinkState>,
    adopted: bool,
    _pin_dir: PinDir,
}

/// Why the data plane cannot be opened. What ran before runs on.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The pin directory cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A pinned map is of another version.
    #[error(transparent)]
    Mismatch(#[from] MapMismatch),
    /// A map cannot be made or used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A pinned map cannot be read, or a new one not be pinned.
    #[error("{action} map {}", path.display())]
    Pinned {
        /// "read" or "pin".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object was not accepted (its maps, its types).
    #[error("load the BPF object (as root, or with CAP_BPF and CAP_NET_ADMIN)")]
    Object(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A program was not accepted.
    #[error("load the BPF program {program}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// What the kernel said, with the verifier's log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program cannot be attached.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl From<SpecError> for OpenError {
    fn from(error: SpecError) -> Self {
        match error {
            SpecError::Mismatch(mismatch) => Self::Mismatch(mismatch),
            SpecError::Map(error) => Self::Map(error),
            SpecError::Read { path, source } => Self::Pinned { action: "read", path, source },
            SpecError::Pin { path, source } => Self::Pinned { action: "pin", path, source },
        }
    }
}

impl DataPlane {
    /// Adopts the maps pinned in `config.pin_dir` or makes them, loads the programs and attaches them to
    /// `config.cgroup`. Programs that an earlier process left there are exchanged without a gap.
    ///
    /// Takes 30 to 110 ms. Fails if the directory is on no bpffs or in use, if a pinned map is of another version,
    /// or if the kernel refuses a map, a program or an attachment.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let cgroup = Cgroup::open(&config.cgroup)?;
        let pin_dir = PinDir::create(&config.pin_dir)?;
        let specs = specs(&config.capacities);
        check_layout(pin_dir.path(), &specs, true)?;
        let mut adopted = 0;
        for spec in &specs {
            adopted += usize::from(check(pin_dir.path(), spec, Check::Whole)?);
        }

        let mut loader = EbpfLoader::new();
        for spec in &specs {
            loader
                .map_pin_path(spec.name, maps_dir(pin_dir.path()).join(spec.name))
                .map_max_entries(spec.name, spec.max_entries);
        }
        let mut object = loader.load(OBJECT).map_err(|source| OpenError::Object(source.into()))?;
        let maps = Maps::take(&mut object, &config.capacities)?;
        // All programs are accepted before the first is attached: a new version that this kernel refuses changes
        // nothing.
        for name in HOOKS {
            program(&mut object, name)?
                .load()
                .map_err(|source| OpenError::Program { program: name, source: source.into() })?;
        }
        let mut links = Vec::with_capacity(HOOKS.len());
        for name in HOOKS {
            links.push(cgroup.attach(pin_dir.path(), name, program(&mut object, name)?)?);
        }
        info!(
            pin_dir = %config.pin_dir.display(),
            cgroup = %config.cgroup.display(),
            maps_adopted = adopted,
            maps = specs.len(),
            programs = links.len(),
            "data plane open"
        );
        Ok(Self { maps, links, adopted: adopted == specs.len(), _pin_dir: pin_dir })
    }

    /// The maps.
    pub fn maps(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// The attached programs, as they were when the data plane was opened.
    pub fn links(&self) -> &[LinkState] {
        &self.links
    }

    /// Whether all maps were there before, so that their content tells what an earlier process applied.
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }
}

fn program<'a>(object: &'a mut aya::Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, OpenError> {
    let program = object
        .program_mut(name)
        .ok_or_else(|| OpenError::Object(format!("no program {name} in it").into()))?;
    program.try_into().map_err(|source: aya::programs::ProgramError| OpenError::Program {
        program: name,
        source: source.into(),
    })
}
