#pragma once

#include <exception>
#include <memory>
#include <string>

// An exception that a .NET callback ended with, on its way through libtorch's autograd engine back to .NET.
struct ManagedError : std::exception {
  // exception: the GCHandle of the .NET exception, freed with the last copy of this error.
  ManagedError(std::string message, std::shared_ptr<void> exception)
      : exception(std::move(exception)), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }

  std::shared_ptr<void> exception;

 private:
  std::string message;
};
