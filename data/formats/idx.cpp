#include "idx.h"

#include <algorithm>

#include "gzip.h"

namespace stairgrad::data {

Array read_idx(const std::string& path) { return parse_idx(read_file(path), path); }

Array parse_idx(ByteView bytes, const std::string& path) {
  if (is_gzip(bytes)) {
    const Bytes content = gunzip(bytes, path);
    try {
      return parse_idx(content, path);
    } catch (const format_error& error) {
      throw format_error(path, 0, text("byte ", error.offset, " of what it unpacks to: ", error.reason));
    }
  }
  Reader reader(path, bytes);
  if (bytes.size() < 4) reader.fail("an IDX file has at least 4 bytes, got ", bytes.size(), hint(bytes));
  if (reader.u16_be("the magic number") != 0)
    throw format_error(path, 0, "an IDX file begins with two zero bytes, this one does not" + hint(bytes));
  if (const int type = reader.u8("the type code"); type != 0x08)
    throw format_error(path, 2, text("got the IDX type code ", type, ", expected 8 (unsigned bytes)"));
  const int rank = reader.u8("the number of extents");
  if (rank < 1 || rank > 3) throw format_error(path, 3, text("got ", rank, " extents, expected 1 to 3"));

  Shape shape;
  uint64_t declared = 1;
  for (int axis = 0; axis < rank; ++axis) {
    const uint32_t extent = reader.u32_be("an extent");
    if (extent == 0) reader.fail("extent ", axis, " is zero, expected at least one element");
    shape.push_back(extent);
    if (__builtin_mul_overflow(declared, uint64_t{extent}, &declared))
      reader.fail("the product of the extents ", shape, " is more than 64 bits hold");
  }
  if (declared != reader.left())
    reader.fail("the extents ", shape, " declare ", declared, " bytes, but ", reader.left(), " follow; ",
                declared > reader.left() ? "the file is cut short" : "there are bytes behind the end",
                ": fetch it again");
  Array values(shape, DType::u8);
  std::ranges::copy(reader.take(declared, "the elements"), values.data<uint8_t>());
  return values;
}

}  // namespace stairgrad::data
