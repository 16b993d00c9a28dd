//! Programs that do nothing, on the same hooks as the capture: what probes cost by themselves.

use std::path::Path;

use anyhow::Context as _;
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{
        BtfTracePoint, UProbe,
        uprobe::{UProbeAttachLocation, UProbeScope},
    },
};

use crate::probe::{libraries, signatures::Signatures, tls};

/// Attached as long as the value lives.
pub struct EmptyPrograms {
    _ebpf: Ebpf,
}

impl EmptyPrograms {
    /// Attaches to system calls, and to the TLS functions of the libraries.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn attach<'a>(libraries: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<Self> {
        let btf = Btf::from_sys_fs()?;
        let mut ebpf = EbpfLoader::new().load(ringtap_bpf::bench_object()).context("cannot load the empty programs")?;
        let calls: &mut BtfTracePoint = program(&mut ebpf, "bench_empty_tracepoint")?;
        calls.load("sys_exit", &btf)?;
        calls.attach()?;
        for name in ["bench_empty_entry", "bench_empty_return"] {
            program::<UProbe>(&mut ebpf, name)?.load()?;
        }
        for library in libraries {
            let found = tls::points(library, &Signatures::default()).map_err(anyhow::Error::msg)?;
            for (name, offsets) in found.iter().flat_map(|found| &found.programs) {
                let name = if *name == libraries::RETURN { "bench_empty_return" } else { "bench_empty_entry" };
                for offset in offsets {
                    let location = UProbeAttachLocation::AbsoluteOffset(*offset);
                    program::<UProbe>(&mut ebpf, name)?.attach(location, library, UProbeScope::AllProcesses)?;
                }
            }
        }
        Ok(Self { _ebpf: ebpf })
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    Ok(ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?.try_into()?)
}
