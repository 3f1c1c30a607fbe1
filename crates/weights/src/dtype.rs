//! Element types: safetensors' names and LibTorch's.

use safetensors::Dtype;
use tch::Kind;

const PAIRS: [(Dtype, Kind); 10] = [
    (Dtype::BOOL, Kind::Bool),
    (Dtype::U8, Kind::Uint8),
    (Dtype::I8, Kind::Int8),
    (Dtype::I16, Kind::Int16),
    (Dtype::I32, Kind::Int),
    (Dtype::I64, Kind::Int64),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
];

pub(crate) fn kind_of(dtype: Dtype) -> Option<Kind> {
    PAIRS.iter().find(|(d, _)| *d == dtype).map(|(_, kind)| *kind)
}

pub(crate) fn dtype_of(kind: Kind) -> Option<Dtype> {
    PAIRS.iter().find(|(_, k)| *k == kind).map(|(dtype, _)| *dtype)
}

pub(crate) fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double)
}
