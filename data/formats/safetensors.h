// Safetensors (https://github.com/huggingface/safetensors): the length of a JSON header as a little-endian
// 64-bit number, the header {name: {dtype, shape, data_offsets}}, then the elements of all tensors without
// gaps.
#pragma once

#include <map>
#include <string>

#include "../../kernels/array.h"
#include "file.h"

namespace stairgrad::data {

/// Named arrays and free text about them.
struct SafeTensors {
  std::map<std::string, Array> tensors;
  std::map<std::string, std::string> metadata;
};

/// Which files may hold weights. Arrays with four extents are (oc, kh, kw, ic / groups) here and differently
/// elsewhere, and nothing but the file's word tells them apart.
enum class Layout {
  ohwi,  ///< a 4-D tensor is refused unless the metadata says layout: ohwi
  any    ///< for an importer that knows the layout of the file
};

/// Reads a whole file: F32, BF16, F64, U8, I8, I32 as they are, F16 as f32, I64 as s32 if all values fit.
/// Throws format_error naming the tensor for every break of the format (overlaps, gaps, sizes, duplicate
/// names, ...).
SafeTensors load_safetensors(const std::string& path, Layout layout = Layout::ohwi);
SafeTensors parse_safetensors(ByteView bytes, const std::string& path, Layout layout = Layout::ohwi);

/// Writes the file as a whole (atomic_write), with layout: ohwi in its metadata unless `content` says
/// otherwise.
void save_safetensors(const std::string& path, const SafeTensors& content);
Bytes encode_safetensors(const SafeTensors& content);

/// The CRC-32 of the names, types, shapes and elements of all tensors and of the metadata's entry `entry`, if
/// it is named: eight hexadecimal digits.
std::string checksum(const SafeTensors& content, const std::string& entry = "");
/// Notes it in the metadata, as stairgrad.checksum.
void seal(SafeTensors& content, const std::string& entry = "");
bool is_sealed(const SafeTensors& content);
/// Throws format_error if they are not those that were sealed. Files of earlier builds have no checksum and
/// pass.
void check_seal(const SafeTensors& content, const std::string& path, const std::string& entry = "");

/// Throws format_error if elements are NaN or infinite; says how many, and which tensor has the first.
void check_finite(const std::map<std::string, Array>& tensors, const std::string& path);

}  // namespace stairgrad::data
