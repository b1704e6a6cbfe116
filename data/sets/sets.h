// The readers behind load_dataset. Each returns the training or the test pictures of one data set.
#pragma once

#include "../dataset.h"

namespace stairgrad::data {

Dataset fashion_mnist(const std::string& dir, bool train);
Dataset mnist(const std::string& dir, bool train);
Dataset cifar10(const std::string& dir, bool train);
Dataset cifar100(const std::string& dir, bool train);
/// JPEG and PNG files, one sub-folder a class; see folder.cpp for the layouts.
Dataset folder(const std::string& dir, bool train);
/// Coloured gratings, one direction and colour a class, with noise: learnable, made up, needs no files.
Dataset synthetic(const std::string& dir, bool train);

/// Where a data set may lie, and how to get it.
struct Place {
  std::string name;           ///< "cifar10"
  std::string subfolder;      ///< "cifar-10-batches-bin"
  std::string system_folder;  ///< where the system's package puts it, or ""
  std::string advice;         ///< how to get the data
};

/// The folder that holds the data set, recognised by the file `wanted` (or `wanted`.gz) in it. Throws
/// unavailable_error that lists the folders tried and gives the advice.
std::string find_data(const Place& place, const std::string& dir, const std::string& wanted);

/// Prints the message to standard error, the first time that this process has it.
void warn_once(const std::string& message);

/// "" if a file of `count` records has as many as are `published`, else a warning that names path and counts.
std::string count_warning(const std::string& path, int64_t count, int64_t published);

}  // namespace stairgrad::data
