#!/usr/bin/env python3
"""ONNX models of the networks that inference.py measures, in 8 bits as ONNX Runtime runs them fastest: QDQ, activations u8, weights
s8 per channel.

    tests/bench/onnx_int8.py FOLDER     writes MODEL_bBATCH.onnx

Needs torch, torchvision, onnx and the Python part of onnxruntime. Ranges are made up: for measuring time, not accuracy.
"""
import importlib.util
import pathlib
import sys
import types
import warnings

import numpy
import onnx
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'golden'))

NETWORKS = {'resnet20': (32, 10), 'resnet18': (224, 1000), 'resnet50': (224, 1000), 'mobilenet_v2': (224, 1000)}
NOT_NEGATIVE = ('Relu', 'Clip', 'MaxPool', 'GlobalAveragePool', 'AveragePool')


def quantization_tools():
    """onnxruntime.quantization without onnxruntime's native library, which Debian's onnx cannot share a process with."""
    package = types.ModuleType('onnxruntime')
    package.__path__ = [str(pathlib.Path(importlib.util.find_spec('onnxruntime').origin).parent)]
    package.__version__ = '1'
    for name in ('InferenceSession', 'SessionOptions', 'GraphOptimizationLevel', 'RunOptions', 'OrtValue'):
        setattr(package, name, type(name, (), {}))
    sys.modules['onnxruntime'] = package
    from onnxruntime.quantization import calibrate, qdq_quantizer, quant_utils, registry
    return calibrate, qdq_quantizer, quant_utils, registry


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings('ignore')
    import zoo
    calibrate, qdq_quantizer, quant_utils, registry = quantization_tools()
    for name, (size, classes) in NETWORKS.items():
        network = next(make for n, width, _, _, _, make in zoo.NETWORKS if n == name and width == 1)(classes).eval()
        with torch.no_grad():
            for layer in network.modules():  # no two convolutions may share a bias, or they are not fused
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.bias.normal_(0, 0.1)
                    layer.running_mean.normal_(0, 0.1)
        for batch in (1, 32):
            path = str(folder / f'{name}_b{batch}.onnx')
            torch.onnx.export(network, torch.randn(batch, 3, size, size), path, opset_version=13, input_names=['images'],
                              output_names=['logits'], do_constant_folding=True)
            model = onnx.shape_inference.infer_shapes(onnx.load(path))
            ranges = {i.name: (numpy.float32(-4), numpy.float32(4)) for i in model.graph.input}
            for node in model.graph.node:
                for output in node.output:
                    ranges[output] = (numpy.float32(0 if node.op_type in NOT_NEGATIVE else -4), numpy.float32(4))
            data = calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, ranges)
            kinds = [op for op in registry.QDQRegistry if op != 'Softmax']
            quantizer = qdq_quantizer.QDQQuantizer(model, True, False, quant_utils.QuantType.QInt8, quant_utils.QuantType.QUInt8,
                                                   data, [], [], kinds, {})
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(path, False)
            print(path, flush=True)


main()
