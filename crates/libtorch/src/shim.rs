//! The C functions of `shim/`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::Error;

/// Runs a segment for [`shim_checkpoint`]: reads its inputs, and writes as many new outputs as are asked for and returns
/// null, or returns an error's text from `malloc`.
pub(crate) type RunSegment = unsafe extern "C" fn(
    segment: *mut c_void,
    inputs: *const *mut C_tensor,
    input_count: usize,
    outputs: *mut *mut C_tensor,
    output_count: usize,
) -> *mut c_char;

/// C++'s `at::Generator`.
#[repr(C)]
pub(crate) struct CGenerator {
    _private: [u8; 0],
}

/// C++'s `c10::Event`.
#[repr(C)]
pub(crate) struct CudaEvent {
    _private: [u8; 0],
}

/// C++'s `c10::intrusive_ptr<c10d::Store>`.
#[repr(C)]
pub(crate) struct CStore {
    _private: [u8; 0],
}

/// C++'s `std::shared_ptr<Group>`, of shim/group.h.
#[repr(C)]
pub(crate) struct CGroup {
    _private: [u8; 0],
}

/// C++'s `std::shared_ptr<Pending>`, likewise.
#[repr(C)]
pub(crate) struct CPending {
    _private: [u8; 0],
}

/// C++'s `std::shared_ptr<Reducer>`, of shim/reducer.cpp.
#[repr(C)]
pub(crate) struct CReducer {
    _private: [u8; 0],
}

// Each returns null, or an exception's text from `malloc`. Tensors are read, or written where the name says so;
// `C_tensor` is C++'s `at::Tensor`.
unsafe extern "C" {
    pub(crate) fn shim_fused_adamw(
        slots: *const [*const C_tensor; 5],
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        skipped: *const C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_global_norm(
        tensors: *const *const C_tensor,
        count: usize,
        norm: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_scale_all(tensors: *const *const C_tensor, count: usize, factor: *const C_tensor)
    -> *mut c_char;
    pub(crate) fn shim_clear_grads(tensors: *const *const C_tensor, count: usize) -> *mut c_char;
    pub(crate) fn shim_set_tf32(allowed: bool) -> *mut c_char;
    pub(crate) fn shim_set_deterministic(on: bool) -> *mut c_char;
    pub(crate) fn shim_cuda_registered() -> bool;
    pub(crate) fn shim_cuda_peak(device: i8, bytes: *mut i64) -> *mut c_char;
    pub(crate) fn shim_cuda_reset_peak(device: i8) -> *mut c_char;
    pub(crate) fn shim_cuda_empty_cache() -> *mut c_char;
    pub(crate) fn shim_upload(tensor: *const C_tensor, device: i8, copy: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn shim_version(tensor: *const C_tensor, version: *mut i64) -> *mut c_char;
    pub(crate) fn shim_pack_conv2d(
        weight: *const C_tensor,
        input: *const C_tensor,
        stride: i64,
        padding: i64,
        packed: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_conv2d_packed(
        input: *const C_tensor,
        packed: *const C_tensor,
        bias: *const C_tensor,
        stride: i64,
        padding: i64,
        output: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_pack_linear(weight: *const C_tensor, rows: i64, packed: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn shim_linear_packed(
        input: *const C_tensor,
        packed: *const C_tensor,
        bias: *const C_tensor,
        output: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_keep_freed(bytes: usize) -> *mut c_char;
    pub(crate) fn shim_release_kept() -> *mut c_char;
    pub(crate) fn shim_group_norm(
        xs: *const C_tensor,
        groups: i64,
        weight: *const C_tensor,
        bias: *const C_tensor,
        eps: f64,
        silu: bool,
        normed: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_geglu(both: *const C_tensor, gated: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn shim_softmax(xs: *const C_tensor, scale: f64, probabilities: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn shim_generator_new(seed: u64, generator: *mut *mut CGenerator) -> *mut c_char;
    pub(crate) fn shim_generator_free(generator: *mut CGenerator);
    pub(crate) fn shim_normal(
        generator: *const CGenerator,
        shape: *const i64,
        dims: usize,
        numbers: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_uniform(
        generator: *const CGenerator,
        shape: *const i64,
        dims: usize,
        numbers: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_integers(
        generator: *const CGenerator,
        high: i64,
        shape: *const i64,
        dims: usize,
        numbers: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn shim_event_record(device: i8, event: *mut *mut CudaEvent) -> *mut c_char;
    pub(crate) fn shim_event_wait(event: *const CudaEvent) -> *mut c_char;
    pub(crate) fn shim_event_free(event: *mut CudaEvent);
    pub(crate) fn shim_store_new(
        host: *const c_char,
        port: u16,
        serves: bool,
        milliseconds: i64,
        store: *mut *mut CStore,
    ) -> *mut c_char;
    pub(crate) fn shim_store_free(store: *mut CStore);
    pub(crate) fn shim_store_set(
        store: *const CStore,
        key: *const c_char,
        value: *const u8,
        length: usize,
    ) -> *mut c_char;
    pub(crate) fn shim_store_get(
        store: *const CStore,
        key: *const c_char,
        value: *mut *mut u8,
        length: *mut usize,
    ) -> *mut c_char;
    pub(crate) fn shim_store_add(store: *const CStore, key: *const c_char, by: i64, sum: *mut i64) -> *mut c_char;
    pub(crate) fn shim_gloo_new(
        store: *const CStore,
        rank: c_int,
        size: c_int,
        milliseconds: i64,
        group: *mut *mut CGroup,
    ) -> *mut c_char;
    pub(crate) fn shim_nccl_id(id: *mut c_char) -> *mut c_char;
    pub(crate) fn shim_nccl_new(
        id: *const c_char,
        rank: c_int,
        size: c_int,
        device: i8,
        group: *mut *mut CGroup,
    ) -> *mut c_char;
    pub(crate) fn shim_group_free(group: *mut CGroup);
    pub(crate) fn shim_group_sum(
        group: *const CGroup,
        tensor: *const C_tensor,
        pending: *mut *mut CPending,
    ) -> *mut c_char;
    pub(crate) fn shim_group_broadcast(
        group: *const CGroup,
        tensor: *const C_tensor,
        from: c_int,
        pending: *mut *mut CPending,
    ) -> *mut c_char;
    pub(crate) fn shim_pending_wait(pending: *const CPending, milliseconds: i64, ended: *mut bool) -> *mut c_char;
    pub(crate) fn shim_pending_free(pending: *mut CPending);
    pub(crate) fn shim_reducer_new(
        group: *const CGroup,
        parameters: *const *const C_tensor,
        count: usize,
        bucket_length: i64,
        reducer: *mut *mut CReducer,
    ) -> *mut c_char;
    pub(crate) fn shim_reducer_free(reducer: *mut CReducer);
    pub(crate) fn shim_reducer_begin(reducer: *const CReducer) -> *mut c_char;
    pub(crate) fn shim_reducer_order(reducer: *const CReducer, order: *mut i64, count: *mut usize) -> *mut c_char;
    pub(crate) fn shim_reducer_arrange(reducer: *const CReducer, order: *const i64, count: usize) -> *mut c_char;
    pub(crate) fn shim_reducer_launch_rest(reducer: *const CReducer) -> *mut c_char;
    pub(crate) fn shim_reducer_wait(reducer: *const CReducer, milliseconds: i64, ended: *mut bool) -> *mut c_char;
    pub(crate) fn shim_reducer_beside(reducer: *const CReducer, beside: *mut usize, all: *mut usize);
    pub(crate) fn shim_checkpoint(
        inputs: *const *const C_tensor,
        input_count: usize,
        outputs: *const *mut C_tensor,
        output_count: usize,
        segment: *mut c_void,
        run: RunSegment,
        drop: unsafe extern "C" fn(*mut c_void),
    ) -> *mut c_char;
}

/// What a shim function returned, as a result.
///
/// # Safety
/// `message` must come from a shim function, and be used no more.
pub(crate) unsafe fn check(message: *mut c_char) -> Result<(), Error> {
    if message.is_null() {
        return Ok(());
    }
    // Safety: it is a C string from `strdup`, and ours.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        libc::free(message.cast());
        text
    };
    Err(Error::from_message(&text))
}

/// What there is, or a panic like `tch`'s own, which [`crate::catch`] turns into an error.
pub(crate) fn or_panic<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| {
        let (Error::OutOfMemory(message) | Error::Torch(message)) = error;
        panic!("{:?}", TchError::Torch(message))
    })
}

/// The tensors as the shim takes them. They must outlive the call.
pub(crate) fn pointers(tensors: &[&Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr()).collect()
}

/// A tensor that a shim function made.
///
/// # Safety
/// As [`check`], where the function has written a new tensor to `made` unless it failed.
pub(crate) unsafe fn made(call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor, Error> {
    let mut tensor = ptr::null_mut();
    // Safety: what the caller promises.
    unsafe {
        check(call(&mut tensor))?;
        Ok(Tensor::from_ptr(tensor))
    }
}
