-- KEYS: group, its members, groups. ARGV: id. Gives whether it was there.
call('ZREM', KEYS[3], ARGV[1])
call('UNLINK', KEYS[2])
return call('UNLINK', KEYS[1])
