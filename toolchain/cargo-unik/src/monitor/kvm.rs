//! What `/dev/kvm` offers, asked through kvm-ioctls.

use kvm_ioctls::Kvm;

/// A usable KVM.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// KVM_GET_API_VERSION; 12 on every Linux since 2.6.22.
    pub api: i32,
    /// The most vCPUs of a machine.
    pub max_vcpus: usize,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No such device.
    Absent,
    /// No permission.
    Denied,
    /// Something else.
    Broken,
}

impl Missing {
    /// To follow after "/dev/kvm".
    pub fn words(self) -> &'static str {
        match self {
            Self::Absent => "does not exist",
            Self::Denied => "may not be opened by this user",
            Self::Broken => "cannot be used",
        }
    }
}

/// Opens the device and asks for its version.
pub fn probe() -> Result<Found, Missing> {
    match Kvm::new() {
        Ok(kvm) if kvm.get_api_version() == 12 => Ok(Found {
            api: 12,
            max_vcpus: kvm.get_max_vcpus(),
        }),
        Ok(_) => Err(Missing::Broken),
        Err(error) => Err(
            match std::io::Error::from_raw_os_error(error.errno()).kind() {
                std::io::ErrorKind::NotFound => Missing::Absent,
                std::io::ErrorKind::PermissionDenied => Missing::Denied,
                _ => Missing::Broken,
            },
        ),
    }
}

/// The frequency of the time stamp counter that a guest sees, in kHz.
pub fn tsc_khz() -> Option<u32> {
    let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).ok()?;
    let vcpu = vm.create_vcpu(0).ok()?;
    vcpu.get_tsc_khz().ok().filter(|khz| *khz > 0)
}
