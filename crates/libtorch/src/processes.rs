//! What several processes share: a store of keys, and operations on tensors of all of them (LibTorch's c10d).

use std::ffi::{CString, c_int};
use std::ptr;
use std::time::{Duration, Instant};

use tch::Tensor;

use crate::Error;
use crate::shim::{self, CGroup, CPending, CStore, check};

/// The bytes of NCCL's `ncclUniqueId`.
const NCCL_ID: usize = 128;

/// Keys and values that processes share, over TCP (c10d's `TCPStore`). Threads take turns.
#[derive(Debug)]
pub struct Store(*mut CStore);

// Safety: c10d's store has a lock around each call.
unsafe impl Send for Store {}
unsafe impl Sync for Store {}

impl Store {
    /// Serves the store at an address.
    ///
    /// # Errors
    /// When the port is taken or not to be had.
    pub fn serve(host: &str, port: u16, timeout: Duration) -> Result<Self, Error> {
        Self::new(host, port, true, timeout)
    }

    /// Connects to who serves it, or will within the timeout.
    ///
    /// # Errors
    /// When nobody does.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, Error> {
        Self::new(host, port, false, timeout)
    }

    fn new(host: &str, port: u16, serves: bool, timeout: Duration) -> Result<Self, Error> {
        let (host, mut store) = (text(host)?, ptr::null_mut());
        // Safety: the host is a C string that outlives the call, which writes a store unless it fails.
        unsafe { check(shim::shim_store_new(host.as_ptr(), port, serves, milliseconds(timeout), &mut store))? };
        Ok(Self(store))
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let key = text(key)?;
        // Safety: all outlive the call.
        unsafe { check(shim::shim_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len())) }
    }

    /// The value of a key, if it has been set.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let key = text(key)?;
        let (mut value, mut length) = (ptr::null_mut(), 0);
        // Safety: all outlive the call, which writes null, or `length` bytes from `malloc`.
        unsafe {
            check(shim::shim_store_get(self.0, key.as_ptr(), &mut value, &mut length))?;
            if value.is_null() {
                return Ok(None);
            }
            let copy = std::slice::from_raw_parts(value, length).to_vec();
            libc::free(value.cast());
            Ok(Some(copy))
        }
    }

    /// Adds to the number at a key, which is 0 at first; returns the sum.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn add(&self, key: &str, by: i64) -> Result<i64, Error> {
        let (key, mut sum) = (text(key)?, 0);
        // Safety: both outlive the call.
        unsafe { check(shim::shim_store_add(self.0, key.as_ptr(), by, &mut sum))? };
        Ok(sum)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Safety: it is ours, and used no more.
        unsafe { shim::shim_store_free(self.0) };
    }
}

/// Processes that compute something together. Each must ask for the same operations in the same order.
#[derive(Debug)]
pub struct Processes(pub(crate) *mut CGroup);

// Safety: it has no ties to a thread.
unsafe impl Send for Processes {}

impl Processes {
    /// Connects all of them, each by its number below `size`, for tensors on the CPU (c10d's `ProcessGroupGloo`).
    /// An operation that takes longer than the timeout fails.
    ///
    /// # Errors
    /// When they do not all come within the timeout.
    pub fn gloo(store: &Store, rank: usize, size: usize, timeout: Duration) -> Result<Self, Error> {
        let [rank, size] = [rank, size].map(|n| c_int::try_from(n).unwrap_or(c_int::MAX));
        let mut group = ptr::null_mut();
        // Safety: the store outlives the call, which writes a group unless it fails.
        unsafe { check(shim::shim_gloo_new(store.0, rank, size, milliseconds(timeout), &mut group))? };
        Ok(Self(group))
    }

    /// The same for f32 and i64 tensors on each one's CUDA device, by NCCL, which is opened now. Written against NCCL's C
    /// interface, and not run yet.
    ///
    /// # Errors
    /// When there is no NCCL, or two processes have one GPU.
    pub fn nccl(store: &Store, rank: usize, size: usize, device: usize, timeout: Duration) -> Result<Self, Error> {
        const KEY: &str = "nccl";
        let mut id = [0u8; NCCL_ID];
        if rank == 0 {
            // Safety: there is room for all of its bytes.
            unsafe { check(shim::shim_nccl_id(id.as_mut_ptr().cast()))? };
            store.set(KEY, &id)?;
        }
        let until = Instant::now() + timeout;
        let given = loop {
            match store.get(KEY)? {
                Some(given) => break given,
                None if Instant::now() > until => return Err(Error::Torch("rank 0 has not opened NCCL".to_owned())),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let short = |_| Error::Torch("rank 0 has another NCCL".to_owned());
        let id: [u8; NCCL_ID] = given.try_into().map_err(short)?;
        let [rank, size] = [rank, size].map(|n| c_int::try_from(n).unwrap_or(c_int::MAX));
        let device = i8::try_from(device).unwrap_or(i8::MAX);
        let mut group = ptr::null_mut();
        // Safety: all outlive the call, which reads as many bytes and writes a group unless it fails.
        unsafe { check(shim::shim_nccl_new(id.as_ptr().cast(), rank, size, device, &mut group))? };
        Ok(Self(group))
    }

    /// Begins to replace a contiguous tensor by the sum of those of all processes.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn sum(&self, tensor: &Tensor) -> Result<Pending, Error> {
        // Safety: both outlive the call, which writes a pending operation unless it fails; that holds the tensor.
        unsafe { Pending::made(|pending| shim::shim_group_sum(self.0, tensor.as_ptr(), pending)) }
    }

    /// Begins to replace a contiguous tensor by that of one process.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn broadcast(&self, tensor: &Tensor, from: usize) -> Result<Pending, Error> {
        let from = c_int::try_from(from).unwrap_or(c_int::MAX);
        // Safety: as in `sum`.
        unsafe { Pending::made(|pending| shim::shim_group_broadcast(self.0, tensor.as_ptr(), from, pending)) }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Safety: it is ours, and used no more; reducers hold the group themselves.
        unsafe { shim::shim_group_free(self.0) };
    }
}

/// An operation that has begun.
#[derive(Debug)]
#[must_use = "wait for it: only then is the tensor the result"]
pub struct Pending(*mut CPending);

impl Pending {
    /// # Safety
    /// As [`check`], where the function has written a new operation unless it failed.
    unsafe fn made(call: impl FnOnce(*mut *mut CPending) -> *mut std::ffi::c_char) -> Result<Self, Error> {
        let mut pending = ptr::null_mut();
        // Safety: what the caller promises.
        unsafe { check(call(&mut pending))? };
        Ok(Self(pending))
    }

    /// Waits for so long at most; returns whether it has ended.
    ///
    /// # Errors
    /// When it has failed.
    pub fn wait(&self, at_most: Duration) -> Result<bool, Error> {
        let mut ended = false;
        // Safety: both outlive the call.
        unsafe { check(shim::shim_pending_wait(self.0, milliseconds(at_most), &mut ended))? };
        Ok(ended)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Safety: it is ours, and used no more.
        unsafe { shim::shim_pending_free(self.0) };
    }
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn text(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Torch(format!("{text:?} has a zero byte")))
}
