// What several processes compute together. The Rust side, with the documentation, is src/processes.rs.
#pragma once

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

// An operation on its way.
struct Pending {
  virtual ~Pending() = default;
  // Whether it has ended after so many milliseconds; throws where it has failed.
  virtual bool wait(int64_t milliseconds) = 0;
};

// Every process must ask for the same operations in the same order, of contiguous tensors of the same sizes, which are
// written to and must not be touched meanwhile.
struct Group {
  virtual ~Group() = default;
  virtual std::shared_ptr<Pending> sum(at::Tensor tensor) = 0;
  virtual std::shared_ptr<Pending> broadcast(at::Tensor tensor, int from) = 0;
};
