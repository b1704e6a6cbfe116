// A deployed program: reads an integer model and runs it. It is linked with the integer runtime alone, so a
// symbol of autograd in there would fail the build.
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/session.h"

int main(int argc, char** argv) {
  using namespace stairgrad;
  if (argc < 2) return 0;
  quant::integer::Session session(quant::integer::load(argv[1]), 1);
  return session.batch() == 1 ? 0 : 1;
}
