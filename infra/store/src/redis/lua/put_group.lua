-- KEYS: group, its members, groups. ARGV: id, record, members of a new one.
call('SET', KEYS[1], ARGV[2])
call('SET', KEYS[2], ARGV[3], 'NX')
return call('ZADD', KEYS[3], 0, ARGV[1])
