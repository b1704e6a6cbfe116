// Residual blocks and the networks made of them: a shorter way to zoo/.
#pragma once

#include "zoo/residual.h"
#include "zoo/zoo.h"
