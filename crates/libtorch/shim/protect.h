// How an exception leaves C++: as text that Rust frees.
#pragma once

#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

template <typename F>
char* protect(F f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}
