-- KEYS: due Z, uplinks, uplinks of its type, uplink. ARGV: what is due, id.
call('ZREM', KEYS[2], ARGV[2])
call('ZREM', KEYS[3], ARGV[2])
call('UNLINK', KEYS[4])
return call('ZREM', KEYS[1], ARGV[1])
