-- KEYS: apps. ARGV: name, record. Gives whether it is new.
return call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
